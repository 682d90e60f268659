"""What several test modules share. `clock.py`: running coroutines in virtual time, with nothing left behind."""
