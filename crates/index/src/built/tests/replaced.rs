//! Structures of another kind than their library asks for at present, and searches that end
//! otherwise than they began.

use super::{Corpus, Share, bits, exact, numbers, query_of, specs};
use crate::{
    AllRows, Allowed, Effort, IndexSpec, Metric, Quantization, Request, RowBlock, RowId,
    SegmentIndex, Sequential, Structure, TopK, Tuning, Vectors,
};

fn spec(name: &str, parameters: &[(&str, u64)]) -> IndexSpec {
    let structure = Structure::new(name, parameters).unwrap();
    IndexSpec { structure, ..IndexSpec::default() }
}

/// The ten nearest, as a library searches that asks for `asked`.
fn search_as(
    asked: IndexSpec,
    index: &SegmentIndex,
    rows: &RowBlock<'_>,
    query: &[f32],
    (allowed, allowed_rows): (&dyn Allowed, u32),
) -> (Vec<(f32, RowId)>, Effort) {
    let mut top = TopK::new(10);
    let request = Request {
        vectors: rows,
        rows: (0, rows.rows()),
        query,
        k: 10,
        spec: asked,
        tuning: Tuning::default(),
        allowed,
        allowed_rows,
    };
    let effort = index.search(request, &mut top, |row| row);
    (top.into_sorted(), effort)
}

#[test]
fn i3_a_library_that_asks_for_an_exact_type_gets_exact_answers_before_it_is_built() {
    let corpus = Corpus::clustered(5, 4000, 12, 30, 0.5);
    let rows = corpus.block();
    let scalar = Quantization::new("scalar", &[]).unwrap();
    let exact_types = [
        spec("brute_force", &[]),
        spec("kd_tree", &[]),
        IndexSpec { quantization: scalar, ..IndexSpec::default() },
    ];
    for own in specs() {
        let index = SegmentIndex::build(own, Metric::L2, &rows, &Sequential);
        for asked in exact_types {
            for n in 0..10 {
                let query = query_of(Metric::L2, &numbers(n, 12));
                let expect = exact(Metric::L2, &rows, &query, 10, &AllRows);
                let (found, effort) = search_as(asked, &index, &rows, &query, (&AllRows, 4000));
                assert_eq!(bits(&found), bits(&expect), "{own} for {asked}");
                assert!(own.is_exact() || effort.walked == 0, "{own} for {asked}: {effort:?}");
            }
        }
    }
}

#[test]
fn a_structure_that_is_about_to_be_replaced_is_searched_as_it_was() {
    let corpus = Corpus::clustered(6, 8000, 12, 40, 0.5);
    let rows = corpus.block();
    let query = query_of(Metric::L2, &numbers(8, 12));
    for (own, asked) in [
        (spec("hnsw", &[("ef_search", 200)]), spec("ivf", &[])),
        (spec("ivf", &[("nprobe", 40)]), spec("hnsw", &[])),
        (spec("ivf", &[("nprobe", 40)]), spec("lsh", &[])),
    ] {
        let index = SegmentIndex::build(own, Metric::L2, &rows, &Sequential);
        let as_it_was = search_as(own, &index, &rows, &query, (&AllRows, 8000));
        let now = search_as(asked, &index, &rows, &query, (&AllRows, 8000));
        assert_eq!(bits(&now.0), bits(&as_it_was.0), "{own} for {asked}");
        assert_eq!(now.1, as_it_was.1, "{own} for {asked}");
        assert_eq!(now.1.walked, 1);
    }
    // Where the structure is of the kind that is asked for, what is asked for counts.
    let index = SegmentIndex::build(spec("ivf", &[]), Metric::L2, &rows, &Sequential);
    let effort = |nprobe| {
        let asked = spec("ivf", &[("nprobe", nprobe)]);
        search_as(asked, &index, &rows, &query, (&AllRows, 8000)).1.vectors
    };
    assert!(effort(8) < effort(40));
}

#[test]
fn what_a_walk_did_that_was_given_up_is_told() {
    let corpus = Corpus::clustered(9, 12_000, 16, 80, 0.5);
    let rows = corpus.block();
    let own = spec("hnsw", &[("ef_search", 40)]);
    let index = SegmentIndex::build(own, Metric::L2, &rows, &Sequential);
    let (mut given_up, share) = (0, Share(35));
    let allowed_rows = (0..12_000).filter(|row| share.allows(RowId(*row))).count();
    let allowed_rows = u32::try_from(allowed_rows).unwrap();
    for n in 0..20 {
        let query = query_of(Metric::L2, &numbers(n, 16));
        let (found, effort) = search_as(own, &index, &rows, &query, (&share, allowed_rows));
        assert_eq!(found.len(), 10);
        if effort.walked == 0 {
            assert_eq!(effort.scanned, 1);
            given_up += u32::from(effort.vectors > allowed_rows.into());
        }
    }
    assert!(given_up > 0, "few rows are allowed: some walks score too many others");
}
