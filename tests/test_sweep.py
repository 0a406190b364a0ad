"""x"""
import shutil, sys
from pathlib import Path
from collections.abc import Callable
import hydra, pytest, time
from conftest import CONF, SMALL
from tbptt.main import job, run

@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    from mlflow import MlflowClient
    p = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{p}").search_experiments()
    return p

@pytest.fixture
def sweep(here, monkeypatch, capsys, empty_store):
    from tbptt.worker import work
    (here / "mlruns").mkdir(); shutil.copy(empty_store, here / "mlruns")
    monkeypatch.setattr("tbptt.sweep._run_pool", lambda study, plan, order, workers, signals: work(order))
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)
    def go(*words):
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", *SMALL, *words])
        return run(main, CONF), capsys.readouterr().err
    return go

def test_a(sweep):
    t=time.time()
    print(sweep("optimizer=adam,rmsprop","clip=0.5,1,2")); print(time.time()-t)
    t=time.time()
    print(sweep("optimizer=adam,rmsprop","clip=0.5,1,2")); print(time.time()-t)
    t=time.time()
    print(sweep("optimizer=adam,rmsprop","clip=0.5,-1,2")); print(time.time()-t)
    assert 0
