"""The durable job: MongoDB is the truth, a message only says *look now*."""
