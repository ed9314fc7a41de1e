"""Made-up people in many scripts: names, addresses, devices; no two share a full name or an e-mail address."""

import random
from dataclasses import dataclass
from itertools import product
from typing import Any

from bson import ObjectId


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The name material of one writing system; ``domains`` are names that nobody can own (RFC 2606, RFC 6761)."""

    name: str
    locale: str
    given: str
    family: str
    streets: str
    cities: str
    domains: str


# fmt: off
SCRIPTS: tuple[Script, ...] = (
    Script(name="latin", locale="pl-PL", given="Zoë Łukasz Søren Agnès Jiří Márta Ñusta Þóra", domains="example.org",
           family="Żółkiewska Brânză Ångström Güneş Dvořák Núñez Guðmundsdóttir Lefèvre",
           streets="Świętokrzyska Königsallee Åsgårdsgate", cities="Łódź Kraków Århus"),
    Script(name="greek", locale="el-GR", given="Μαρία Γιώργος Ελένη Δημήτρης Σοφία", domains="παράδειγμα.example",
           family="Παπαδοπούλου Καραγιάννης Οικονόμου Βλάχου Νικολαΐδης",
           streets="Πανεπιστημίου Ερμού Σταδίου", cities="Αθήνα Θεσσαλονίκη Ιωάννινα"),
    Script(name="cyrillic", locale="uk-UA", given="Оксана Дмитро Світлана Богдан Їванна", domains="приклад.example",
           family="Шевченко Ковальчук Бондаренко Лисенко Ґудзик",
           streets="Хрещатик Володимирська Городоцька", cities="Київ Львів Чернівці"),
    Script(name="arabic", locale="ar-EG", given="فاطمة محمود ليلى يوسف عائشة", domains="مثال.example",
           family="الشريف المنصوري العبدالله النجار الحسيني",
           streets="شارع_التحرير شارع_النيل شارع_الملك", cities="القاهرة الإسكندرية طرابلس"),
    Script(name="hebrew", locale="he-IL", given="שרה אברהם רחל יהונתן מרים", domains="דוגמה.example",
           family="לוינשטיין בן־דוד אברמוביץ שפירא מזרחי",
           streets="רחוב_הרצל דיזנגוף רוטשילד", cities="ירושלים תל־אביב באר־שבע"),
    Script(name="chinese", locale="zh-CN", given="秀英 建国 美玲 志强 晓红", domains="例子.example",
           family="欧阳 司马 诸葛 上官 夏侯", streets="人民路 中山路 解放大道", cities="北京市 上海市 广州市"),
    Script(name="japanese", locale="ja-JP", given="さくら 健太郎 美咲 翔太 ヒカル", domains="たとえ.example",
           family="佐々木 長谷川 小笠原 五十嵐 渡邊",
           streets="銀座四丁目 本町通り 桜木町", cities="東京都 大阪市 札幌市"),
    Script(name="korean", locale="ko-KR", given="서연 민준 지우 하은 도윤", domains="보기.example",
           family="남궁 황보 제갈 선우 독고",
           streets="세종대로 강남대로 충장로", cities="서울특별시 부산광역시 대전광역시"),
    Script(name="devanagari", locale="hi-IN", given="प्रिया अर्जुन लक्ष्मी विक्रम कविता", domains="उदाहरण.example",
           family="शर्मा त्रिपाठी चतुर्वेदी अग्रवाल कुलकर्णी",
           streets="महात्मा_गांधी_मार्ग नेहरू_पथ तिलक_मार्ग", cities="वाराणसी मुंबई नई_दिल्ली"),
    Script(name="thai", locale="th-TH", given="สมชาย มาลี ณัฐวุฒิ พิมพ์ชนก วรรณา", domains="ตัวอย่าง.example",
           family="แก้วมณี ศรีสุวรรณ วงศ์สวัสดิ์ บุญเรือง ทองดี",
           streets="ถนนสุขุมวิท ถนนพระราม ถนนเจริญกรุง", cities="กรุงเทพฯ เชียงใหม่ ขอนแก่น"),
)
# fmt: on
DEVICES = ("Pixel 9", "iPhone 17", "ThinkPad X1", "Galaxy Tab", "Raspberry Pi")
PLAIN_DOMAINS = ("example.org", "example.net")
NETWORKS = ("192.0.2", "198.51.100", "203.0.113", "2001:db8")  # for documentation only (RFC 5737, RFC 3849)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One made-up person."""

    id: ObjectId
    number: int
    script: Script
    given: str
    family: str
    email: str
    ip: str
    user_agent: str
    address: dict[str, Any]

    @property
    def name(self) -> str:
        """The full name, as people of this script may write it."""
        return f"{self.given} {self.family}"


def make_people(rng: random.Random, ids: list[ObjectId]) -> list[Person]:
    """Return one person for each of *ids*; the scripts take turns."""
    names = {script.name: _names(script, rng) for script in SCRIPTS}
    return [_make(rng, id_, number, names) for number, id_ in enumerate(ids)]


def _names(script: Script, rng: random.Random) -> list[tuple[str, str]]:
    found = list(product(script.given.split(), script.family.split()))
    rng.shuffle(found)
    return found


def _make(rng: random.Random, id_: ObjectId, number: int, names: dict[str, list[tuple[str, str]]]) -> Person:
    script = SCRIPTS[number % len(SCRIPTS)]
    turn = number // len(SCRIPTS)
    known = names[script.name]
    given, family = known[turn % len(known)]
    if turn >= len(known):  # more people than names: a number tells them apart
        family = f"{family}-{turn // len(known) + 1}"
    return Person(
        id=id_,
        number=number,
        script=script,
        given=given,
        family=family,
        email=_email(rng, script, given, family, number),
        ip=_ip(rng, number),
        user_agent=f"MusicApp/{number % 7 + 1}.{number}-{rng.randrange(1000, 9999)} ({rng.choice(DEVICES)})",
        address={
            "street": f"{rng.choice(script.streets.split()).replace('_', ' ')} {number + 100}",
            "postal_code": f"{rng.randrange(10, 99)}-{number:04d}",
            "city": rng.choice(script.cities.split()).replace("_", " "),
            "country": script.locale[-2:],
        },
    )


def _email(rng: random.Random, script: Script, given: str, family: str, number: int) -> str:
    """Every third address is in the person's own script, another third in mixed case; the number makes it unique."""
    local = f"{given}.{family}{number}"
    if number % 3 == 0:
        return f"{local}@{script.domains}"
    domain = rng.choice(PLAIN_DOMAINS)
    return f"Listener.{number:04d}@{domain.title()}" if number % 3 == 1 else f"listener{number:04d}@{domain}"


def _ip(rng: random.Random, number: int) -> str:
    network = NETWORKS[number % len(NETWORKS)]
    if ":" in network:
        return f"{network}:{number:x}::{rng.randrange(1, 0xFFFF):x}"
    return f"{network}.{number // len(NETWORKS) % 254 + 1}"
