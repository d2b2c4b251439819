//! Runs histories by themselves, and finds a short one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::history::History;
use crate::run::{Broken, Outcome, run};
use crate::world;

/// Threads interleave as they please, so a history that fails once may pass the next time.
const TRIES: usize = 3;

/// Runs a history in a runtime of its own. A panic of the engine is a failure like any other.
pub fn run_alone(history: &History) -> Result<Outcome, Broken> {
    let failed = |what: String| Broken { step: None, what };
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(run(history))));
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(failed(format!("panicked: {}", text.unwrap_or_default())))
        }
    }
}

/// Leaves out steps of a failing history as long as it fails without them (delta debugging:
/// Zeller 1999), with at most about `runs_max` runs. The history and how it fails.
pub fn shorten(history: &History, broken: Broken, runs_max: usize) -> (History, Broken) {
    let (mut shortest, mut why) = (history.clone(), broken);
    let mut runs = 0;
    let mut fails = |history: &History| {
        (0..TRIES).find_map(|_try| {
            runs += 1;
            if runs > runs_max { None } else { run_alone(history).err() }
        })
    };
    // What comes after the failing step has no part in it.
    if let Some(last) = why.step {
        let prefix = shortest.keeping(|number| number <= last);
        if let Some(broken) = fails(&prefix) {
            (shortest, why) = (prefix, broken);
        }
    }
    let mut size = shortest.steps.len().div_ceil(2).max(1);
    loop {
        let mut begin = 0;
        let mut shorter = false;
        while begin < shortest.steps.len() {
            let numbers: Vec<usize> = shortest.steps.iter().map(|(number, _)| *number).collect();
            let end = (begin + size).min(numbers.len());
            let without = shortest.keeping(|number| !numbers[begin..end].contains(&number));
            match fails(&without) {
                Some(broken) => {
                    (shortest, why, shorter) = (without, broken, true);
                }
                None => begin = end,
            }
        }
        if size == 1 && !shorter {
            return (shortest, why);
        }
        if !shorter {
            size = size.div_ceil(2);
        }
        size = size.min(shortest.steps.len().max(1));
    }
}
