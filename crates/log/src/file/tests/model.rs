//! Random operations against a list, the oracle.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Operation {
    Append { stream: u8, bytes: usize },
    Close,
    Drop,
    Crash,
    Trim { share: u8 },
    LoseIndexes,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        12 => (0_u8..4, 0_usize..600).prop_map(|(stream, bytes)| Operation::Append { stream, bytes }),
        1 => Just(Operation::Close),
        1 => Just(Operation::Drop),
        1 => Just(Operation::Crash),
        1 => any::<u8>().prop_map(|share| Operation::Trim { share }),
        1 => Just(Operation::LoseIndexes),
    ]
}

fn lose_indexes(disk: &MemoryDisk) {
    for path in paths(disk, "idx") {
        disk.remove(&path).unwrap();
    }
}

fn check(log: &MemoryLog, model: &[Record]) -> Result<(), TestCaseError> {
    let first = log.first();
    let kept: Vec<_> = model.iter().filter(|record| record.seq >= first).cloned().collect();
    prop_assert!(all(log) == kept);
    prop_assert_eq!(log.durable(), model.last().map_or(0, |record| record.seq));
    let middle = kept.get(kept.len() / 2).map_or(0, |record| record.seq).max(first - 1);
    let after: Vec<_> = log.read(middle).unwrap().map(Result::unwrap).collect();
    prop_assert!(after.iter().eq(kept.iter().filter(|record| record.seq > middle)));
    for stream in (0..4).map(|n| Stream([n; 16])) {
        let of_stream = |record: &&Record| record.stream == stream && record.seq > middle;
        let read: Vec<_> = log.read_stream(stream, middle).unwrap().map(Result::unwrap).collect();
        prop_assert!(read.iter().eq(kept.iter().filter(of_stream)));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn l2_the_log_is_the_list_of_its_appends(
        operations in prop::collection::vec(operation(), 1..80),
    ) {
        let (mut log, _) = open(&MemoryDisk::new()).unwrap();
        let mut model: Vec<Record> = Vec::new();
        for operation in operations {
            match operation {
                Operation::Append { stream, bytes } => {
                    let stream = Stream([stream; 16]);
                    let payload = payload(model.len() as u64, bytes);
                    let seq = put(&log, stream, &payload).unwrap();
                    prop_assert!(model.last().is_none_or(|last| last.seq < seq));
                    model.push(Record { seq, stream, payload: payload.into() });
                    continue;
                }
                Operation::Close => {
                    log.close().unwrap();
                    log = open(log.disk()).unwrap().0;
                }
                Operation::Drop => {
                    let disk = log.disk().clone();
                    drop(log);
                    log = open(&disk).unwrap().0;
                }
                Operation::Crash => log = log.crash().unwrap().0,
                Operation::Trim { share } => {
                    let last = model.last().map_or(0, |record| record.seq);
                    log.trim(last * u64::from(share) / 255).unwrap();
                }
                Operation::LoseIndexes => lose_indexes(log.disk()),
            }
            check(&log, &model)?;
        }
        check(&log, &model)?;
    }
}
