"""Registration methods: one file each, found by `reg_bench.discovery`; see CONTRIBUTING.md for how to add one."""
