use arrwdb_index::{Quantization, Structure};
use proptest::prelude::*;

use super::*;
use crate::library::ModelName;

fn spec(n: u8) -> LibrarySpec {
    LibrarySpec {
        id: LibraryId::from_bytes([n; 16]),
        tenant: TenantId::DEFAULT,
        name: format!("library {n}"),
        description: None,
        created_at: Timestamp::from_micros(1),
        index: IndexSpec::default(),
        metric: arrwdb_index::Metric::L2,
        model: ModelName { provider: "local".into(), model: "all-MiniLM-L6-v2".into() },
        dimension: 384,
        companion_of: None,
        generation_of: None,
        language: Language::English,
    }
}

#[test]
fn s1_a_catalog_is_the_fold_of_its_entries() {
    let at = Timestamp::from_micros(2);
    let mut catalog = Catalog::default();
    let mut log = Vec::new();
    let update = CatalogCommand::Update {
        tenant: TenantId::DEFAULT,
        id: spec(1).id,
        name: Some("renamed".into()),
        description: Some(Some("about".into())),
        language: Some(Language::Russian),
    };
    let delete = CatalogCommand::Delete { tenant: TenantId::DEFAULT, id: spec(2).id };
    let quantization = Quantization::new("hybrid", &[("bits", 4)]).unwrap();
    let structure = Structure::new("hnsw", &[("M", 24)]).unwrap();
    let index = IndexSpec { structure, quantization };
    let reindex = CatalogCommand::ChangeIndex { tenant: TenantId::DEFAULT, id: spec(1).id, index };
    let create = [1, 2].map(|n| CatalogCommand::Create(spec(n)));
    for command in create.into_iter().chain([update, delete, reindex]) {
        let entry = catalog.decide(command, at).unwrap();
        assert_eq!(CatalogEntry::decode(&entry.encode()).unwrap(), entry);
        log.push(entry.clone());
        catalog = catalog.apply(Seq::new(log.len() as u64), &entry);
    }
    assert_eq!(catalog.get(spec(1).id).unwrap().name, "renamed");
    assert_eq!(catalog.get(spec(1).id).unwrap().index, index);
    assert_eq!(catalog.get(spec(1).id).unwrap().language, Language::Russian);
    assert!(catalog.get(spec(2).id).is_none());
    let bytes = catalog.write(&Work::default(), |_id| Seq::new(7));
    let read = Snapshot::read(&bytes).unwrap();
    assert_eq!(read.catalog, catalog);
    assert_eq!(read.checkpointed, BTreeMap::from([(spec(1).id, Seq::new(7))]));
}

#[test]
fn another_tenants_library_does_not_exist() {
    let catalog = Catalog::default().apply(Seq::new(1), &CatalogEntry::LibraryCreated(spec(1)));
    let delete = CatalogCommand::Delete { tenant: TenantId::new(5), id: spec(1).id };
    let refused = catalog.decide(delete, Timestamp::from_micros(0)).unwrap_err();
    assert_eq!(refused, CatalogRejection::NotFound(spec(1).id));
}

#[test]
fn a_companion_is_nobodys_and_goes_with_its_library() {
    let of = LibraryId::from_bytes([0x71; 16]);
    let create = |spec: LibrarySpec| CatalogEntry::LibraryCreated(spec);
    let companion = || LibrarySpec { id: of.companion(), companion_of: Some(of), ..spec(3) };
    let at = Timestamp::from_micros(0);
    let early = Catalog::default().decide(CatalogCommand::Create(companion()), at);
    assert_eq!(early.unwrap_err(), CatalogRejection::NotFound(of));
    let catalog = Catalog::default()
        .apply(Seq::new(1), &create(LibrarySpec { id: of, ..spec(1) }))
        .apply(Seq::new(2), &create(companion()));
    assert_eq!((catalog.len(), catalog.iter().count()), (1, 2));
    assert_eq!(catalog.companion(of).unwrap().id, of.companion());
    assert!(of.companion().is_companion() && !of.is_companion());
    assert!(catalog.owned(TenantId::DEFAULT, of.companion()).is_err());
    let bytes = catalog.write(&Work::default(), |_id| Seq::START);
    let read = Snapshot::read(&bytes).unwrap().catalog;
    assert_eq!(read, catalog);
    let gone = read.apply(Seq::new(3), &CatalogEntry::LibraryDeleted { id: of, at, was: None });
    assert_eq!(gone.iter().count(), 0);
    assert!(gone.is_empty());
}

fn generation(n: u8, of: u8) -> LibrarySpec {
    LibrarySpec { dimension: 64, generation_of: Some(spec(of).id), ..spec(n) }
}

/// A catalog after these commands, the last of which may be refused.
fn after(
    catalog: Catalog,
    commands: Vec<CatalogCommand>,
) -> (Catalog, Result<(), CatalogRejection>) {
    let mut catalog = catalog;
    for command in commands {
        match catalog.decide(command, Timestamp::from_micros(9)) {
            Ok(entry) => {
                let seq = Seq::new(catalog.applied().get() + 10);
                catalog = catalog.apply(seq, &entry);
                let bytes = catalog.write(&Work::default(), |_id| Seq::START);
                assert_eq!(Snapshot::read(&bytes).unwrap().catalog, catalog);
            }
            Err(refused) => return (catalog, Err(refused)),
        }
    }
    (catalog, Ok(()))
}

#[test]
fn a_library_goes_from_one_generation_to_the_next_and_keeps_its_id() {
    let tenant = TenantId::DEFAULT;
    let (id, [first, second]) = (spec(1).id, [spec(1).id, spec(2).id]);
    let of =
        |generation, change| CatalogCommand::ChangeGeneration { tenant, id, generation, change };
    let prepare = |generation| of(generation, GenerationChange::Prepare);
    let activate = |generation, stage| of(generation, GenerationChange::Activate(stage));
    let discard = |generation| of(generation, GenerationChange::Discard);
    let create = CatalogCommand::Create;
    let (catalog, done) =
        after(Catalog::default(), vec![create(spec(1)), create(generation(2, 1))]);
    assert_eq!((done, catalog.len(), catalog.active(id)), (Ok(()), 1, first));
    assert!(catalog.is_passive(second) && !catalog.is_passive(first));
    assert!(catalog.owned(tenant, second).is_err(), "it is nobody's");
    // What cannot be done is refused, and says why.
    let refusals = [
        (create(generation(3, 1)), HAS_ANOTHER),
        (activate(second, Stage::Prepared), NOT_PREPARED),
        (activate(second, Stage::Previous), NOT_PREVIOUS),
        (activate(second, Stage::Building), NOT_PREPARED),
        (discard(first), HAS_NO_OTHER),
        (prepare(first), HAS_NO_OTHER),
    ];
    for (command, why) in refusals {
        let refused = after(catalog.clone(), vec![command]).1;
        assert_eq!(refused, Err(CatalogRejection::Generation(why)));
    }
    let structure = Structure::new("hnsw", &[]).unwrap();
    let index = IndexSpec { structure, quantization: Quantization::default() };
    let rename = CatalogCommand::Update {
        tenant,
        id,
        name: Some("renamed".into()),
        description: Some(Some("about".into())),
        language: Some(Language::Russian),
    };
    let (catalog, done) = after(
        catalog,
        vec![
            prepare(second),
            CatalogCommand::ChangeIndex { tenant, id, index },
            activate(second, Stage::Prepared),
            rename,
        ],
    );
    assert_eq!(done, Ok(()));
    let seen = catalog.library(id).unwrap();
    assert_eq!((seen.id, seen.dimension, &*seen.name, seen.index), (id, 64, "renamed", index));
    let there = catalog.get(second).unwrap();
    assert_eq!((there.index, &*there.name), (index, "library 2"));
    assert_eq!((seen.language, there.language), (Language::Russian, Language::Russian));
    assert_eq!((catalog.active(id), catalog.is_passive(first)), (second, true));
    let since = catalog.generations(id).unwrap().history();
    assert_eq!(since, [(Seq::START, first), (Seq::new(50), second)]);
    what_it_began_with_is_removed(catalog, of);
}

/// Back and there again, with nothing left of the first.
fn what_it_began_with_is_removed(
    catalog: Catalog,
    of: impl Fn(LibraryId, GenerationChange) -> CatalogCommand,
) {
    let tenant = TenantId::DEFAULT;
    let (id, [first, second]) = (spec(1).id, [spec(1).id, spec(2).id]);
    let activate = |generation, stage| of(generation, GenerationChange::Activate(stage));
    let create = CatalogCommand::Create;
    let (catalog, done) = after(
        catalog,
        vec![
            activate(first, Stage::Previous),
            activate(second, Stage::Prepared),
            of(first, GenerationChange::Discard),
            create(generation(3, 1)),
        ],
    );
    assert_eq!((done, catalog.len(), catalog.get(first)), (Ok(()), 1, None));
    assert_eq!(catalog.owners_libraries().map(|spec| spec.id).collect::<Vec<_>>(), [id]);
    let delete = CatalogEntry::LibraryDeleted { id, at: Timestamp::from_micros(0), was: None };
    assert_eq!(catalog.removed_by(&delete), [second, spec(3).id]);
    let (catalog, done) = after(catalog, vec![CatalogCommand::Delete { tenant, id }]);
    assert_eq!((done, catalog.iter().count(), catalog.len()), (Ok(()), 0, 0));
}

#[test]
fn an_index_has_to_go_with_every_generation() {
    let tenant = TenantId::DEFAULT;
    let quantization = Quantization::new("product", &[("pq_subvectors", 100)]).unwrap();
    let index = IndexSpec { structure: Structure::default(), quantization };
    assert!(index.check_dimension(384).is_ok() && index.check_dimension(64).is_err());
    let id = spec(1).id;
    let change = CatalogCommand::ChangeIndex { tenant, id, index };
    let create = CatalogCommand::Create;
    let both = vec![create(spec(1)), create(generation(2, 1)), change.clone()];
    let unfit = Err(CatalogRejection::Generation(UNFIT));
    assert_eq!(after(Catalog::default(), both).1, unfit);
    let both = vec![create(spec(1)), change, create(generation(2, 1))];
    assert_eq!(after(Catalog::default(), both).1, unfit);
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let catalog = Catalog::default().apply(Seq::new(1), &CatalogEntry::LibraryCreated(spec(1)));
    let bytes = catalog.write(&Work::default(), |_id| Seq::START);
    for place in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[place] ^= 1;
        assert!(Snapshot::read(&damaged).is_err(), "byte {place}");
    }
}

/// Something that is done to one of few libraries.
#[derive(Debug, Clone)]
enum Step {
    Create(u8, Language),
    Update(u8, Option<Language>),
    Generate(u8),
    Delete(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let language = || prop::sample::select(Language::ALL.to_vec());
    let update = prop::option::of(language());
    prop_oneof![
        (1..4_u8, language()).prop_map(|(n, language)| Step::Create(n, language)),
        (1..4_u8, update).prop_map(|(n, language)| Step::Update(n, language)),
        (1..4_u8).prop_map(Step::Generate),
        (1..4_u8).prop_map(Step::Delete),
    ]
}

proptest! {
    #[test]
    fn s1_libraries_have_the_language_that_they_were_given_last(
        steps in prop::collection::vec(step(), 0..20)
    ) {
        let tenant = TenantId::DEFAULT;
        let mut model: BTreeMap<LibraryId, Language> = BTreeMap::new();
        let mut catalog = Catalog::default();
        for step in steps {
            let command = match step {
                Step::Create(n, language) => {
                    CatalogCommand::Create(LibrarySpec { language, ..spec(n) })
                }
                Step::Update(n, language) => {
                    let id = spec(n).id;
                    CatalogCommand::Update { tenant, id, name: None, description: None, language }
                }
                Step::Generate(n) => CatalogCommand::Create(generation(n + 10, n)),
                Step::Delete(n) => CatalogCommand::Delete { tenant, id: spec(n).id },
            };
            let (next, done) = after(catalog, vec![command]);
            catalog = next;
            if done.is_ok() {
                match step {
                    Step::Create(n, language) | Step::Update(n, Some(language)) => {
                        model.extend([(spec(n).id, language)]);
                    }
                    Step::Update(_, None) | Step::Generate(_) => {}
                    Step::Delete(n) => model.retain(|id, _language| *id != spec(n).id),
                }
            }
            let seen = catalog.owners_libraries().map(|spec| (spec.id, spec.language));
            prop_assert_eq!(seen.collect::<BTreeMap<_, _>>(), model.clone());
            // What holds a library's documents is of its language.
            for part in catalog.iter() {
                let of = part.generation_of.unwrap_or(part.id);
                prop_assert_eq!(Some(&part.language), model.get(&of));
            }
        }
    }
}
