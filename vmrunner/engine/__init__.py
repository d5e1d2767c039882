"""The reconcile loop: schedule, launch, observe, take over, finish, terminate."""
