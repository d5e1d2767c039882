"""Parts that drivers of clouds share.

`clock.py` a cloud's own time · `rate_limits.py` its limits on calls, kept before it must refuse
`capacity_pools.py` the offers, and which ran dry · `batches.py` many deletes in one
call, where one bad item never blocks another · `paging.py` a listing as pages, incomplete where a
part failed
"""
