"""Bad options and arguments of every command."""

from __future__ import annotations

from pathlib import Path

from bad_cases import Case


def _full(folder: Path) -> None:
    (folder / "full").mkdir()
    (folder / "full" / "file").touch()


CASES = [
    Case(name=f"{number:03} {command}", command=command, says=says, build=_full)
    for number, (command, says) in enumerate(
        [
            ("run --methods kor --dry-run", "unknown method 'kor': did you mean 'kore'?"),
            ("run --methods lora,,kor --dry-run", "unknown method 'kor': did you mean 'kore'?"),
            ("run --methods lora+full --dry-run", "lora+full has two adapters (lora and full): keep one"),
            ("run --methods lora+lora --dry-run", "lora+lora has two adapters (lora and lora): keep one"),
            ("run --methods + --dry-run", "something is missing beside a +"),
            ("run --methods lora+ --dry-run", "something is missing beside a +"),
            ("run --methods '' --dry-run", "--methods is empty: name at least one, such as kore,lora"),
            ("run --methods base --dry-run", "unknown method 'base': did you mean 'sefe'?"),
            ("run --methods LORA --dry-run", "unknown method 'LORA': did you mean 'lora'?"),
            (
                "run --methods lora:rank --dry-run",
                "lora:rank: 'rank' must have the form FIELD=VALUE, such as kore:rank=64",
            ),
            (
                "run --methods lora:rank=0 --dry-run",
                "lora.rank=0 is out of range: the smallest side of a layer allows ranks 1 to 128",
            ),
            (
                "run --methods lora:rank=-4 --dry-run",
                "lora.rank=-4 is out of range: the smallest side of a layer allows ranks 1 to 128",
            ),
            (
                "run --methods lora:rank=1000000 --dry-run",
                "lora.rank=1000000 is out of range: the smallest side of a layer allows ranks 1 to 128 (28 of 28 layers are nar",
            ),
            (
                "run --methods lora:rank=nan --dry-run",
                "lora.rank=nan is no rank: use a whole number, auto, or match:lora@16",
            ),
            ("run --methods lora:ranc=4 --dry-run", "lora:ranc=4: no part has a setting 'ranc': did you mean 'rank'?"),
            (
                "run --methods kore:depth=4 --dry-run",
                "kore:depth=4: no part has a setting 'depth': did you mean 'dropout'?",
            ),
            ("run --model mini-lava --dry-run", "unknown model 'mini-lava': did you mean 'mini-llava'?"),
            ("run --model no/such/folder --dry-run", "there is no model folder no/such/folder"),
            ("run --model '' --dry-run", "--model is empty: name a card"),
            ("run --model . --dry-run", "Unrecognized model in ."),
            ("run --data nowhere --dry-run", "no knowledge folder 'nowhere'"),
            (
                "run --data '' --dry-run",
                "the knowledge folder '.' has no evoke_injection_data.json; none are available",
            ),
            ("run --data . --dry-run", "the knowledge folder '.' has no evoke_injection_data.json; none are available"),
            ("run --tasks adaptatoin --dry-run", "unknown task 'adaptatoin': did you mean 'adaptation'?"),
            ("run --tasks '' --dry-run", "--tasks is empty: name at least one, such as adaptation,retention"),
            (
                "run --tasks vlmeval:NoSuchSet --dry-run",
                "vlmeval:NoSuchSet needs VLMEvalKit: git clone https://github.com/open-compass/VLMEvalKit && pip install -e VLM",
            ),
            ("run --tasks lm-eval: --dry-run", "unknown task 'lm-eval:'"),
            ("run --seeds 0 --dry-run", "--seeds"),
            ("run --seeds -1 --dry-run", "--seeds"),
            ("run --seeds two --dry-run", "--seeds"),
            ("run --seeds 1.5 --dry-run", "--seeds"),
            ("run --jobs -1 --dry-run", "--jobs"),
            ("run --limit -5 --dry-run", "--limit"),
            (
                "run --set train.stepz=1 --dry-run",
                "--set train.stepz: train has no setting 'stepz': did you mean 'steps'?",
            ),
            (
                "run --set train.steps --dry-run",
                "--set train.steps must have the form name.field=value, such as kore-null.rank=64",
            ),
            ("run --set train.steps= --dry-run", "--set train.steps= must be a whole number"),
            ("run --set train.steps=-1 --dry-run", "train.steps=-1 must not be negative"),
            ("run --set train.steps=1e99 --dry-run", "--set train.steps=1e99 must be a whole number"),
            ("run --set train.steps=ten --dry-run", "--set train.steps=ten must be a whole number"),
            ("run --set train.learning_rate=nan --dry-run", "--set train.learning_rate=nan must be a number"),
            ("run --set train.learning_rate=-1 --dry-run", "train.learning_rate=-1.0 must not be negative"),
            ("run --set train.learning_rate=inf --dry-run", "--set train.learning_rate=inf must be a number"),
            ("run --set train.batch_size=0 --dry-run", "train.batch_size=0 must be at least 1"),
            (
                "run --set nonsense=1 --dry-run",
                "--set nonsense=1 must have the form name.field=value, such as kore-null.rank=64",
            ),
            ("run --set no.such=1 --dry-run", "--set no.such: no chosen method or task has a part 'no'"),
            ("run --set =1 --dry-run", "--set =1 must have the form name.field=value, such as kore-null.rank=64"),
            ("run --set old.samples=0 --dry-run", "--set old.samples=0 must be at least 1"),
            ("run --set old.samples=-3 --dry-run", "--set old.samples=-3 must be at least 1"),
            (
                "run --set kore-null.rank=0 --methods kore-null --dry-run",
                "kore-null.rank=0 is out of range: the smallest input of a layer allows ranks 1 to 128",
            ),
            (
                "run --set kore-null.rank=129 --methods kore-null --dry-run",
                "kore-null.rank=129 is out of range: the smallest input of a layer allows ranks 1 to 128 (24 of 28 layers are n",
            ),
            (
                "run --set kore-augmentation.generator=gpt --methods kore --dry-run",
                "kore-augmentation: unknown generator 'gpt'",
            ),
            (
                "run --set kore-augmentation.parts=trunk --methods kore --dry-run",
                "kore-augmentation.parts: unknown part 'trunk'",
            ),
            (
                "run --set kore-augmentation.parts= --methods kore --dry-run",
                "kore-augmentation.parts is empty: use some of dialogue, recognition, caption, vqa",
            ),
            (
                "run --set kore-augmentation.turns=-1 --methods kore --dry-run",
                "kore-augmentation.turns and kore-augmentation.questions must not be negative",
            ),
            (
                "run --set kore-augmentation.source=nowhere --methods kore --dry-run",
                "--set kore-augmentation.source=nowhere: there is no folder or file 'nowhere'",
            ),
            ("run --set ewc.strength=-1 --methods ewc --dry-run", "ewc.strength=-1.0 must not be negative"),
            (
                "run --set replay.ratio=-2 --methods replay --dry-run",
                "replay.ratio=-2.0 must be above 0 (0.1 replays one old sample to ten new ones)",
            ),
            ("run --set model.dtype=float8 --dry-run", "--set model.dtype=float8 is not one of float32, bfloat16"),
            (
                "run --set model.dropout=1 --dry-run",
                "model.max_pixels must not be negative, and model.dropout must be from 0 to below 1",
            ),
            ("run --set model.name=x --dry-run", "--set model.name: model has no setting 'name'"),
            (
                "run --sweep lora.rank --dry-run",
                "--sweep lora.rank must have the form part.field=V,V, such as kore-null.rank=64,128",
            ),
            (
                "run --sweep lora.rank= --dry-run",
                "--sweep lora.rank= must have the form part.field=V,V, such as kore-null.rank=64,128",
            ),
            (
                "run --sweep lora.ranc=1,2 --methods lora --dry-run",
                "--sweep lora.ranc: lora has no setting 'ranc': did you mean 'rank'?",
            ),
            (
                "run --sweep ewc.strength=1,2 --methods lora --dry-run",
                "--sweep ewc.strength: no chosen method has a part 'ewc'",
            ),
            (
                "run --sweep lora.rank=4,x --methods lora --dry-run",
                "lora.rank=x is no rank: use a whole number, auto, or match:lora@16",
            ),
            ("run --plan paper/table99 --dry-run", "unknown plan 'paper/table99': did you mean 'paper/table5'?"),
            ("run --plan nowhere.yaml --dry-run", "--plan nowhere.yaml cannot be read: No such file or directory"),
            ("run --config nowhere.yaml --dry-run", "--config nowhere.yaml cannot be read: No such file or directory"),
            ("run --tuning nowhere.json --dry-run", "--tuning nowhere.json: there is no such file"),
            ("run --plugin nowhere.py --dry-run", "--plugin nowhere.py: there is no such file"),
            ("run --calibration nowhere --dry-run", "--calibration nowhere is neither a file, a folder nor a task"),
            (
                "run --calibration mme:x --dry-run",
                "--calibration mme:x is neither a file, a folder nor a task: did you mean 'mme'?",
            ),
            (
                "run --calibration adaptation --dry-run",
                "replay trains on the old samples, and --calibration adaptation would let it train on answers that a task asks",
            ),
            (
                "run --lm-eval-path nowhere --dry-run",
                "--set lm-eval.path: no chosen method or task has a part 'lm-eval': did you mean 'model'?",
            ),
            (
                "run --judge-url http://localhost:9 --dry-run",
                "--judge-url needs --judge NAME: what the endpoint calls the model",
            ),
            (
                "run --judge gpt --judge-url not-a-url --tasks mathvista --dry-run",
                "--judge-url not-a-url is no address: give its base, such as http://localhost:8000/v1",
            ),
            ("run --rerun sometimes --dry-run", "Invalid value for '--rerun'"),
            ("run --strategy zero3 --dry-run", "Invalid value for '--strategy'"),
            (
                "run --strategy fsdp2 --dry-run",
                "--strategy fsdp2 shards a cell over several GPUs: add --gpus-per-cell 2 or more",
            ),
            ("run --gpus-per-cell 0 --dry-run", "Invalid value for '--gpus-per-cell'"),
            (
                "run --gpus-per-cell 64 --dry-run",
                "--gpus-per-cell 64 cannot share train.batch_size=16 evenly: set train.batch_size to a multiple of 64",
            ),
            ("run --report-to mlflow --dry-run", "--report-to mlflow is not known"),
            ("run --gpu h900 --dry-run", "--gpu h900 is unknown"),
            ("run --name ../outside --dry-run", "--name ../outside must be a plain name"),
            ("run --name /absolute --dry-run", "--name /absolute must be a plain name"),
            ("run --name a/b/../../.. --dry-run", "must be a plain name"),
            ("run --no-such-option --dry-run", "No such option"),
            ("run surplus --dry-run", "Got unexpected extra argument"),
            ("rnu", "No such command"),
            ("tune --methods lora+full", "lora+full has two adapters (lora and full): keep one"),
            ("tune --methods kor", "unknown method 'kor': did you mean 'kore'?"),
            (
                "tune --set train.steps=0 --set train.epochs=0",
                "train.steps and train.epochs are both 0: give one of them",
            ),
            ("tune --jobs x", "Invalid value for '--jobs'"),
            ("report nowhere", "there is no run folder nowhere"),
            ("report .", ". is not a run folder: it has no plan.yaml"),
            ("compare nowhere", "nowhere is not a run folder: it has no plan.yaml"),
            ("compare . --methods kore", ". is not a run folder: it has no plan.yaml"),
            ("show nowhere", "there is no run folder nowhere"),
            ("show . kore", ". is not a run folder: it has no plan.yaml"),
            ("table nowhere", "there is no run folder nowhere"),
            ("table . nonsense", "'nonsense' is no table that can be printed"),
            ("table . --format word", "Invalid value for '--format'"),
            ("export nowhere kore --out x", "nowhere is not a run folder: it has no plan.yaml"),
            ("export . kore", "Missing option '--out'"),
            ("frontier nowhere", "there is no run folder nowhere"),
            ("frontier . --scales 2", "--scales 2 is out of range: between 0"),
            ("frontier . --scales a,b", "--scales a,b are no numbers"),
            ("frontier . --scales nan", "--scales nan"),
            ("verify nowhere", "there is no run folder nowhere"),
            ("verify .", ". is not a run folder: it has no plan.yaml"),
            ("covariance --model mini-lava", "unknown model 'mini-lava': did you mean 'mini-llava'?"),
            ("covariance --method lora", "no part of lora reads covariances"),
            ("covariance --method kor", "unknown method 'kor': did you mean 'kore'?"),
            ("covariance --samples -1", "Invalid value for '--samples'"),
            ("covariance --calibration nowhere", "--calibration nowhere is neither a file, a folder nor a task"),
            ("analyze co-svd --remove 0", "--remove"),
            ("analyze co-svd --remove x", "--remove"),
            ("analyze co-svd --remove 99999", "--remove"),
            ("analyze co-svd --tasks nonsense", "unknown task 'nonsense'"),
            ("analyze covariance --samples 1", "Invalid value for '--samples'"),
            ("analyze covariance --sets nonsense", "--sets nonsense is no skill, task or path"),
            ("analyze covariance --layers nonsense", "--layers nonsense: no linear layer ends so"),
            ("analyze nonsense", "No such command"),
            ("list nonsense", "Invalid value for 'kind'"),
            ("list methods kor", "unknown method 'kor': did you mean 'kore'?"),
            ("list models llava-8b", "unknown model 'llava-8b': did you mean 'llava-7b'?"),
            ("list tasks x", "unknown task 'x'"),
            ("list reports x", "unknown report 'x'"),
            ("new method ''", "'' is no name for a method: use lower case, digits and hyphens, such as norm-penalty"),
            (
                "new method 'Not A Name'",
                "'Not A Name' is no name for a method: use lower case, digits and hyphens, such as norm-penalty",
            ),
            (
                "new method ../escape",
                "'../escape' is no name for a method: use lower case, digits and hyphens, such as norm-penalty",
            ),
            ("new method lora", "there is a method 'lora' already (kore-bench list methods): choose another name"),
            ("new method class", "'class' is the name of a Python module already: choose another, such as my-class"),
            ("new method x --folder nowhere/at/all", "--folder nowhere/at/all: there is no such folder"),
            ("data check nowhere", "there is no folder or file 'nowhere'"),
            ("data check .", ". holds no data set that can be told: of JSON files it has none; name one of them"),
            ("data convert nowhere target --to llava", "there is no folder or file 'nowhere'"),
            ("data convert mini target --to word", "Invalid value for '--to'"),
            ("data convert mini full --to llava", "full is there already"),
        ]
    )
]
