"""Local EC2, Compute Engine and Azure, with real VMs behind them or none: for tests of programs
that use vmrunner or these clouds, of vmrunner itself, and for trying things out.

`ec2/` `gce/` `azure/` a cloud each, with what it needs in an extra of that name · `common/` what
each is made of · `vms/` real VMs behind them
"""
