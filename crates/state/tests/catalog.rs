//! The catalog's replay, at the size that it may have.

use std::time::{Duration, Instant};

use arrwdb_state::limits::LIBRARIES_MAX;
use arrwdb_state::{
    Catalog, CatalogEntry, IndexSpec, Language, LibraryId, LibrarySpec, ModelName, Seq, Snapshot,
    TenantId, Timestamp, Work,
};

/// Replay that copies the catalog for each record takes minutes, whatever the machine.
const ENOUGH: Duration = Duration::from_secs(10);

fn spec(n: u64) -> LibrarySpec {
    // Numbers that are near each other are far from each other in the catalog's order.
    let id = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    LibrarySpec {
        id: LibraryId::from_bytes(id.to_be_bytes()),
        tenant: TenantId::DEFAULT,
        name: format!("library {n}"),
        description: None,
        created_at: Timestamp::from_micros(1),
        index: IndexSpec::default(),
        metric: arrwdb_state::Metric::Cosine,
        model: ModelName { provider: "local".into(), model: "all-MiniLM-L6-v2".into() },
        dimension: 384,
        companion_of: None,
        generation_of: None,
        language: Language::English,
    }
}

#[test]
fn s4_replay_of_a_full_catalog_takes_time_in_proportion_to_its_records() {
    let entries: Vec<CatalogEntry> =
        (0..LIBRARIES_MAX as u64).map(|n| CatalogEntry::LibraryCreated(spec(n))).collect();
    let started = Instant::now();
    let mut catalog = Catalog::default();
    for (seq, entry) in (1..).zip(&entries) {
        catalog = catalog.apply(Seq::new(seq), entry);
        assert!(started.elapsed() < ENOUGH, "{seq} records took {:?}", started.elapsed());
    }
    println!("{} creations in {:?}", entries.len(), started.elapsed());
    assert_eq!(catalog.len(), LIBRARIES_MAX);
    let bytes = catalog.write(&Work::default(), |_id| Seq::START);
    assert_eq!(Snapshot::read(&bytes).unwrap().catalog, catalog);
}
