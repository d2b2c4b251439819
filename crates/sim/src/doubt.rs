//! Writes that were neither acknowledged nor surely refused: wholly there, or wholly not.

use arrwdb_engine::Engine;

use crate::check::{Failure, TENANT, differs, versions};
use crate::model::{Documents, Library, Model};

/// A write whose outcome is known only after the next start.
#[derive(Debug, Clone)]
pub(crate) enum Doubt {
    /// A library, if it is there under this name.
    Created { slot: u64, name: String },
    /// Another name.
    Renamed { slot: u64, name: String },
    /// A library, unless it is there.
    Dropped { slot: u64 },
    /// The new version of each of these documents; `None`: deleted.
    Documents { slot: u64, changes: Vec<(u64, Option<u64>)> },
}

/// Sees what became of each doubt. They are of different documents or libraries.
pub(crate) async fn resolve(
    engine: &Engine,
    model: &mut Model,
    doubts: Vec<Doubt>,
) -> Result<(), Failure> {
    for doubt in doubts {
        let listed = engine.libraries(TENANT, None).await?;
        match doubt {
            Doubt::Created { slot, name } => {
                if let Some(found) = listed.into_iter().find(|one| one.spec.name == name) {
                    let documents = Documents::new();
                    model.libraries.insert(slot, Library { id: found.spec.id, name, documents });
                }
            }
            Doubt::Renamed { slot, name } => {
                let Some(library) = model.libraries.get_mut(&slot) else { continue };
                if listed.iter().any(|one| one.spec.id == library.id && one.spec.name == name) {
                    library.name = name;
                }
            }
            Doubt::Dropped { slot } => {
                let Some(library) = model.libraries.get(&slot) else { continue };
                if !listed.iter().any(|one| one.spec.id == library.id) {
                    model.libraries.remove(&slot);
                }
            }
            Doubt::Documents { slot, changes } => {
                let Some(library) = model.libraries.get_mut(&slot) else { continue };
                let snapshot = engine.library(TENANT, library.id, None).await?;
                let found = versions(&snapshot, slot)?;
                let is = |(n, version): &(u64, Option<u64>)| found.get(n) == version.as_ref();
                let was = |(n, _): &(u64, Option<u64>)| found.get(n) == library.documents.get(n);
                if changes.iter().all(is) {
                    for (n, version) in changes {
                        match version {
                            Some(version) => library.documents.insert(n, version),
                            None => library.documents.remove(&n),
                        };
                    }
                } else if !changes.iter().all(was) {
                    return differs(format!("half of {changes:?} is in slot {slot}: {found:?}"));
                }
            }
        }
    }
    Ok(())
}
