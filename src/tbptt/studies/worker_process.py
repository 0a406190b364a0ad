"""``python -m tbptt.studies.worker_process``: a worker in a process of its own. What it needs is imported here, under
the settings of a process that starts."""

from tbptt.system import collecting

if __name__ == "__main__":
    collecting.seldom()

    from tbptt.studies.worker import main
    from tbptt.system.endings import leave

    leave(main())
