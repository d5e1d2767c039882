"""The guard in an AWS account: a Lambda function on a schedule (`deploy/aws/guard.py`), with the
least roles that can do it, a queue for what came to nothing, and alarms.

`site.py` where, what it is called, how it should be · `documents.py` policies and the function's
code · `element.py` a part · `basics.py`, `function.py`, `schedule.py`, `alarms.py` the parts ·
`health.py` when it last worked · `account.py` all of it: install, status, remove
"""
