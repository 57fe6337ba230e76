"""Faults of real processes under load: what a person sees of each, the time until healthy, and a count of everything.

`make faults` runs all of them and prints a table; those that take seconds are in `make test`, the others in
`make proofs`. A fault is a test with the mark `fault` and the fixture of that name (`plugin.py`):

    @pytest.mark.fault("pg_kill")
    def test_…(fault: Fault, …):
        …                                                   # the load, and the fault
        fault.saw(log.read_text(), r"the streams stopped: .*")
        with fault.until_healthy():
            wait_until(…)
        fault.settle(take_account(settings, sent))

It fails where something is lost or doubled (`account.py`), and where one of the three was left out. A fault of a part
that keeps no records says so: `fault.keeps_no_records("…")`.
"""
