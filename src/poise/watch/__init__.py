"""Watching a run's numbers: signs of failure, alarms, other trainers' logs. Plain numbers only; no torch."""
