"""A fault campaign: a real run of the suite is broken in every way we know of, and must end right.

    python -m tests.faults                    everything; some ten minutes on two CPU cores
    python -m tests.faults --quick            the form inside the ordinary tests; under a minute
    python -m tests.faults --only disk,two    the fault classes whose names contain one of these
    python -m tests.faults --seed 1           other moments

Each fault class is one function of `tests/faults/campaign.py`. A fault is put into a forked child
that runs `run_bench.py run` on a small task; then the same command is given again without it, and
what lies in the results folder is compared with an undisturbed run: weights, records, log lines
and the ledgers of steps, examples and FLOPs, bit for bit. The table at the end counts, per class,
the faults tried and the things that were

    lost      missing afterwards, or no longer to be had by giving the command again
    double    there twice: log lines, cells or records
    wrong     other numbers or bits than the undisturbed run's, without a word about it
    unclear   errors without a way out, and tracebacks

and the exit status is 0 only where all four are 0. Everything happens in a temporary folder that
is deleted at the end (`--keep` leaves it). As root on Linux a full disk is a small tmpfs and a
read-only folder a read-only mount; otherwise the calls that write raise the same errors.
"""
