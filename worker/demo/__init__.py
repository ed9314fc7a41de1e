"""``compliance demo``: the product in one minute, on servers and made-up people of its own."""
