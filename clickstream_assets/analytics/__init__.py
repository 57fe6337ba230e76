"""The tables and how they are computed: functions from DataFrame to DataFrame, on either engine, no I/O."""
