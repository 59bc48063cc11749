"""Half a minute of `make chaos`, always with the same faults."""

import chaos

SECONDS, SEED = 30, 8


def test_clients_get_good_answers_while_parts_break():
    print(f"chaos: SEED={SEED}")
    run = chaos.Chaos(SEED, SECONDS)
    findings = run.run()
    print(run.report())
    assert findings == [], f"MINUTES={SECONDS / 60:g} SEED={SEED}, for make chaos, repeats the faults"
