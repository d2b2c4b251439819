//! What a segment is searched by: any bytes are a structure or an error, and a structure is searched
//! within the rows.
#![no_main]

use arrwdb_fuzz::Held;
use arrwdb_index::{
    AllRows, IndexSpec, Metric, Quantization, Request, RowBlock, SectionReader, SegmentIndex,
    Structure, TopK, Tuning,
};
use arrwdb_state::FileBytes;
use libfuzzer_sys::fuzz_target;

const DIMS: usize = 8;
const ROWS: u32 = 300;

fuzz_target!(|bytes: &[u8]| {
    let Some(([kind, strategy, metric], bytes)) = bytes.split_first_chunk::<3>() else { return };
    let pick = |of: usize, choice: u8| usize::from(choice) % of;
    let structure = Structure::new(Structure::TYPES[pick(Structure::TYPES.len(), *kind)], &[]);
    let strategies = Quantization::STRATEGIES;
    let quantization = Quantization::new(strategies[pick(strategies.len(), *strategy)], &[]);
    let (Ok(structure), Ok(quantization)) = (structure, quantization) else { return };
    let Ok(spec) = IndexSpec::new(structure, quantization) else { return };
    let metric = Metric::ALL[pick(Metric::ALL.len(), *metric)];
    let held = Held::new(bytes);
    let mut from = SectionReader::new(held.bytes());
    let Ok(index) = SegmentIndex::read(&mut from, spec, metric, DIMS, ROWS) else { return };
    let vectors: Vec<f32> = (1..=ROWS as usize * DIMS).map(|n| (n % 97) as f32).collect();
    let inverse_norms = vec![0.01; ROWS as usize];
    let rows = RowBlock::new(DIMS, &vectors, &inverse_norms);
    let tuning = Tuning { ef_search: Some(4), ..Tuning::default() };
    let request = Request {
        vectors: &rows,
        rows: (0, ROWS),
        query: &[0.5; DIMS],
        k: 3,
        spec,
        tuning,
        allowed: &AllRows,
        allowed_rows: ROWS,
    };
    let mut top = TopK::new(3);
    index.search(request, &mut top, |row| row);
    assert!(top.into_sorted().iter().all(|(_distance, row)| row.0 < ROWS));
});
