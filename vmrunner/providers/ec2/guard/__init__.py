"""The guard in an AWS account: a Lambda function on a schedule (`deploy/aws/guard.py`), with the
least roles that can do it, a queue for what came to nothing, and alarms.

- all of it: `account.py` (install, status, remove), `health.py` (when it last worked)
- its parts: `roles_and_queue.py`, `function.py`, `schedule.py`, `alarms.py`; `part.py` is any part
- how they should be: `names.py`, `documents.py` (policies and the function's code)
"""
