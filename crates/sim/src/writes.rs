//! Writes of a history, one by one or at the same time.

use arrwdb_engine::{EngineError, LibraryPatch, PutReceipt, Written};
use futures_util::future::join_all;

use crate::check::{Failure, TENANT, differs};
use crate::doubt::Doubt;
use crate::history::Step;
use crate::model::{Library, document, id, language, name};
use crate::run::Run;

/// Renames or deletes a library.
pub(crate) async fn catalog(run: &mut Run, step: &Step) -> Result<(), Failure> {
    match step {
        Step::Rename { slot, version } => {
            let Some(library) = run.model.libraries.get_mut(slot) else { return Ok(()) };
            let name = name(*slot, *version);
            let patch = LibraryPatch {
                name: Some(name.clone()),
                description: None,
                language: Some(language(&name)),
            };
            match run.engine.update_library(TENANT, library.id, patch).await {
                Ok(written) => {
                    library.name = name;
                    run.acknowledged(written.seq);
                }
                Err(error) => run.refused(error, Doubt::Renamed { slot: *slot, name })?,
            }
        }
        Step::Drop { slot } => {
            let Some(library) = run.model.libraries.get(slot) else { return Ok(()) };
            match run.engine.delete_library(TENANT, library.id).await {
                Ok(written) => {
                    run.model.libraries.remove(slot);
                    run.acknowledged(written.seq);
                }
                Err(error) => run.refused(error, Doubt::Dropped { slot: *slot })?,
            }
        }
        _ => {}
    }
    Ok(())
}

/// What the engine answered to one write.
enum Answer {
    Put(Result<Written<Vec<Result<PutReceipt, EngineError>>>, EngineError>),
    Deleted(Result<Written<Vec<Option<u32>>>, EngineError>),
}

/// Puts and deletes, all at the same time.
pub(crate) async fn together(run: &mut Run, steps: &[&Step]) -> Result<(), Failure> {
    let engine = run.engine.clone();
    let model = &run.model;
    let writes = steps.iter().filter_map(|step| {
        let (slot, documents) = target(step)?;
        let library = model.libraries.get(&slot)?.id;
        let engine = engine.clone();
        Some(async move {
            if let Step::Put { version, .. } = step {
                let batch = documents.iter().map(|n| document(slot, *n, *version)).collect();
                Answer::Put(engine.put_documents(TENANT, library, batch).await)
            } else {
                let ids = documents.iter().map(|n| id(*n)).collect();
                Answer::Deleted(engine.delete_documents(TENANT, library, ids).await)
            }
        })
    });
    let answers = join_all(writes).await;
    let known: Vec<&Step> = steps
        .iter()
        .filter(|step| {
            target(step).is_some_and(|(slot, _)| run.model.libraries.contains_key(&slot))
        })
        .copied()
        .collect();
    for (step, answer) in known.into_iter().zip(answers) {
        settle(run, step, answer)?;
    }
    Ok(())
}

fn target(step: &Step) -> Option<(u64, &Vec<u64>)> {
    match step {
        Step::Put { slot, documents, .. } | Step::Delete { slot, documents } => {
            Some((*slot, documents))
        }
        _ => None,
    }
}

/// The version that each document has after the step.
fn changes(step: &Step) -> Vec<(u64, Option<u64>)> {
    match step {
        Step::Put { documents, version, .. } => {
            documents.iter().map(|n| (*n, Some(*version))).collect()
        }
        Step::Delete { documents, .. } => documents.iter().map(|n| (*n, None)).collect(),
        _ => Vec::new(),
    }
}

fn settle(run: &mut Run, step: &Step, answer: Answer) -> Result<(), Failure> {
    let Some((slot, documents)) = target(step) else { return Ok(()) };
    let Some(library) = run.model.libraries.get_mut(&slot) else { return Ok(()) };
    let existed: Vec<bool> = documents.iter().map(|n| library.documents.contains_key(n)).collect();
    let (seq, said): (_, Vec<bool>) = match answer {
        Answer::Put(Ok(written)) => {
            let receipts = written.value.into_iter().collect::<Result<Vec<_>, _>>()?;
            (written.seq, receipts.iter().map(|receipt| receipt.replaced).collect())
        }
        Answer::Deleted(Ok(written)) => {
            (written.seq, written.value.iter().map(Option::is_some).collect())
        }
        Answer::Put(Err(error)) | Answer::Deleted(Err(error)) => {
            return run.refused(error, Doubt::Documents { slot, changes: changes(step) });
        }
    };
    if said != existed {
        return differs(format!("{documents:?} of slot {slot} existed: {said:?}, not {existed:?}"));
    }
    apply(library, step);
    run.acknowledged(seq);
    Ok(())
}

/// Does to a library of the model what the step does.
pub(crate) fn apply(library: &mut Library, step: &Step) {
    for (n, version) in changes(step) {
        match version {
            Some(version) => library.documents.insert(n, version),
            None => library.documents.remove(&n),
        };
    }
}
