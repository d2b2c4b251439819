//! A few histories; `cargo xtask sim` runs many.

use arrwdb_sim::{History, Outcome, every_sync, run_alone};

#[test]
fn histories_end_as_acknowledged() {
    let mut total = Outcome::default();
    for seed in 1..=40 {
        let history = History::new(seed, 120);
        match run_alone(&history) {
            Ok(outcome) => total.add(outcome),
            Err(broken) => panic!("{broken:?}\nagain: {}", history.command()),
        }
    }
    // The faults did come.
    assert!(total.crashes > 300 && total.faults > 100 && total.refused > 5, "{total:?}");
}

#[test]
fn a_power_loss_at_any_sync_loses_nothing_acknowledged() {
    let seen = every_sync(1, 1000, 23).unwrap_or_else(|what| panic!("{what}"));
    assert!(seen.syncs > 1000 && seen.crashes > 200, "{seen:?}");
}
