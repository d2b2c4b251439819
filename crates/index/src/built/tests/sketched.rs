//! Graphs over rows that are long enough for sketches.

use super::{
    Asked, Corpus, Share, Two, bits, check_found, exact, numbers, query_of, reader, recall, search,
    written,
};
use crate::hnsw::{Config, Hnsw, Twins};
use crate::{
    AllRows, Allowed, Effort, IndexSpec, Metric, Quantization, Request, RowId, SegmentIndex,
    Sequential, Structure, TopK, Tuning, Vectors,
};

/// Dimensions whose sketches have four bits, two, two with a part of the last byte unused, and one.
const DIMS: [usize; 4] = [192, 256, 301, 500];

fn spec() -> IndexSpec {
    let structure = Structure::new("hnsw", &[]).unwrap();
    IndexSpec { structure, quantization: Quantization::None }
}

/// What a search does.
fn effort(index: &SegmentIndex, corpus: &Corpus, query: &[f32], ef: u32) -> Effort {
    let rows = corpus.block();
    let request = Request {
        vectors: &rows,
        rows: (0, rows.rows()),
        query,
        k: 10,
        spec: index.spec(),
        tuning: Tuning { ef_search: Some(ef), ..Tuning::default() },
        allowed: &AllRows,
        allowed_rows: rows.rows(),
    };
    index.search(request, &mut TopK::new(10), |row| row)
}

/// Rows that have few numbers in truth, as what a model makes of texts has.
fn folded(rows: usize, dims: usize) -> Vec<f32> {
    const TRUE_DIMS: usize = 12;
    let (true_rows, ways) = (numbers(17, rows * TRUE_DIMS), numbers(18, TRUE_DIMS * dims));
    let noise = numbers(19, rows * dims);
    let value = |at: usize| {
        let row = &true_rows[at / dims * TRUE_DIMS..][..TRUE_DIMS];
        let along = row.iter().enumerate().map(|(way, part)| part * ways[way * dims + at % dims]);
        along.sum::<f32>() + 0.1 * noise[at]
    };
    (0..rows * dims).map(value).collect()
}

#[test]
fn a_walk_reads_few_of_the_rows_that_it_meets_and_finds_as_many() {
    for dims in DIMS {
        let corpus = Corpus::new(dims, folded(2000, dims));
        for metric in Metric::ALL {
            let index = SegmentIndex::build(spec(), metric, &corpus.block(), &Two);
            let found = recall(&index, &corpus, 60, |_| Box::new(AllRows));
            assert!(found >= 0.95, "{dims} by {metric:?}: {found}");
            let few = recall(&index, &corpus, 60, |_| Box::new(Share(500)));
            assert!(few >= 0.95, "{dims} by {metric:?}, half of the rows: {few}");
            let done = effort(&index, &corpus, &query_of(metric, &corpus.vectors[..dims]), 60);
            assert_eq!(done.walked, 1);
            // Of an inner product only the query's whole length bounds the error.
            let (of, parts) = if metric == Metric::Dot { (4, 3) } else { (2, 1) };
            assert!(done.vectors * of < done.codes * parts, "{dims} by {metric:?}: {done:?}");
        }
    }
}

#[test]
fn few_rows_that_pass_are_scanned_without_reading_most_of_them() {
    let corpus = Corpus::new(256, folded(3000, 256));
    let hybrid = IndexSpec { quantization: Quantization::new("hybrid", &[]).unwrap(), ..spec() };
    for (spec, least) in [(spec(), 0.99), (hybrid, 1.0)] {
        for metric in Metric::ALL {
            let index = SegmentIndex::build(spec, metric, &corpus.block(), &Two);
            let found = recall(&index, &corpus, 20, |_| Box::new(Share(200)));
            assert!(found >= least, "{spec} by {metric:?}: {found}");
            let query = query_of(metric, &corpus.vectors[..256]);
            let rows = corpus.block();
            let allowed = Share(200);
            let count = (0..3000).filter(|row| allowed.allows(RowId(*row))).count();
            let allowed_rows = u32::try_from(count).unwrap();
            let request = Request {
                vectors: &rows,
                rows: (0, 3000),
                query: &query,
                k: 10,
                spec,
                tuning: Tuning { ef_search: Some(20), ..Tuning::default() },
                allowed: &allowed,
                allowed_rows,
            };
            let done = index.search(request, &mut TopK::new(10), |row| row);
            // Codes rule out for certain, sketches do not.
            let certain = u32::from(least >= 1.0);
            assert_eq!((done.scanned, done.walked), (certain, 1 - certain), "{spec} by {metric:?}");
            let rows = u64::from(allowed_rows);
            // The first of them say what is near; of an inner product only the query's length bounds
            // the error of a sketch.
            let part = if metric == Metric::Dot { 1 } else { 2 };
            assert!(done.vectors * part < rows, "{spec} by {metric:?}: {done:?} of {rows}");
            let all = Request { tuning: Tuning { exact: true, ..request.tuning }, ..request };
            let done = index.search(all, &mut TopK::new(10), |row| row);
            assert_eq!((done.vectors, done.codes), (rows, 0), "every row where that is asked for");
        }
    }
}

#[test]
fn i4_sketches_have_the_same_bytes_on_any_number_of_threads_and_are_counted() {
    for dims in DIMS {
        let corpus = Corpus::clustered(3, 1100, dims, 40, 0.4);
        let [one, two] = [&Sequential as &dyn crate::Executor, &Two]
            .map(|threads| SegmentIndex::build(spec(), Metric::L2, &corpus.block(), threads));
        assert!(written(&one).bytes() == written(&two).bytes(), "{dims}");
        let plain = hnsw(&corpus);
        assert!(one.bytes() >= plain.bytes() + 1100 * dims / 8, "{dims}: {}", one.bytes());
    }
}

/// A graph without sketches.
fn hnsw(corpus: &Corpus) -> Hnsw {
    let rows = corpus.block();
    let space = crate::full_space::FullSpace::new(Metric::L2, &rows);
    let twins = Twins::find(&rows, &Sequential);
    crate::hnsw::build(&space, twins, Config::default(), 7, &Sequential)
}

#[test]
fn short_rows_have_no_sketch_and_codes_need_none() {
    let corpus = Corpus::clustered(5, 300, 191, 7, 0.4);
    let graph = hnsw(&corpus);
    let bytes = graph.bytes();
    assert_eq!(graph.sketched(Metric::L2, &corpus.block(), &Sequential).bytes(), bytes);
    let corpus = Corpus::clustered(5, 300, 192, 7, 0.4);
    let hybrid = IndexSpec { quantization: Quantization::new("hybrid", &[]).unwrap(), ..spec() };
    let [full, coded] = [spec(), hybrid].map(|spec| {
        let index = SegmentIndex::build(spec, Metric::L2, &corpus.block(), &Sequential);
        index.bytes() - index.code_bytes()
    });
    assert!(coded < full, "{coded} bytes, and with sketches {full}");
}

#[test]
fn i5_sketches_are_read_as_they_were_written_and_no_damage_makes_a_search_fail() {
    let (dims, rows) = (192, 300);
    for metric in Metric::ALL {
        let corpus = Corpus::clustered(23, rows, dims, 9, 0.3);
        let index = SegmentIndex::build(spec(), metric, &corpus.block(), &Sequential);
        let bytes = written(&index);
        let read = |bytes: &super::Aligned| {
            SegmentIndex::read(&mut reader(bytes), spec(), metric, dims, 300)
        };
        let same = read(&bytes).unwrap();
        assert!(written(&same).bytes() == bytes.bytes());
        let query = query_of(metric, &numbers(1, dims));
        let asked = Asked { k: 3, tuning: Tuning { ef_search: Some(8), ..Tuning::default() } };
        let found = |index| search(index, &corpus.block(), &query, asked, &AllRows);
        assert_eq!(bits(&found(&same)), bits(&found(&index)));
        // Without what says whether there are sketches, as graphs were written before.
        let sketches = rows * (8 + dims / 2) + 4 * dims + 4 * 64;
        let mut refused = 0;
        for place in (bytes.bytes().len() - sketches..bytes.bytes().len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged.bytes_mut()[place] ^= 0xff;
            match read(&damaged) {
                Ok(damaged) => check_found(&damaged, &corpus.block(), &query, asked, &AllRows),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 0, "what says how the sketches are is checked");
        let cut = super::Aligned(bytes.0.clone(), bytes.1 - sketches);
        assert!(read(&cut).is_err());
    }
}

#[test]
fn rows_that_are_equal_and_rows_at_the_ends_of_the_range_are_found() {
    let dims = 192;
    let spread = numbers(9, dims * 400);
    let scaled = |scale: fn(usize) -> f32| -> Vec<f32> {
        spread.iter().enumerate().map(|(at, value)| value * scale(at / dims)).collect()
    };
    let equal: Vec<f32> = spread[..dims].repeat(400);
    let twins: Vec<f32> = [&spread[..dims * 200], &spread[..dims * 200]].concat();
    let ends = scaled(|row| if row % 2 == 0 { 1e-18 } else { 1e17 });
    let huge = scaled(|_row| 1e18);
    for (mixed, vectors) in [(false, equal), (false, twins), (true, ends), (false, huge)] {
        let corpus = Corpus::new(dims, vectors);
        for metric in Metric::ALL {
            let index = SegmentIndex::build(spec(), metric, &corpus.block(), &Sequential);
            let tuning = Tuning { ef_search: Some(20), ..Tuning::default() };
            for row in [0, 199] {
                let own = query_of(metric, corpus.block().row(RowId(row)).0);
                check_found(&index, &corpus.block(), &own, Asked { k: 5, tuning }, &AllRows);
                check_found(&index, &corpus.block(), &own, Asked { k: 5, tuning }, &Share(900));
                // Between rows that are next to nothing no link leads to a long one.
                if metric != Metric::Dot && !mixed {
                    let nearest = exact(metric, &corpus.block(), &own, 1, &AllRows);
                    let asked = Asked { k: 1, tuning };
                    let found = search(&index, &corpus.block(), &own, asked, &AllRows);
                    assert_eq!(bits(&found), bits(&nearest), "{metric:?}: itself, row {row}");
                }
            }
        }
    }
}
