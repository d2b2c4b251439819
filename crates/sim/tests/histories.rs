//! A few histories; `cargo run --release -p arrwdb-sim -- 10000` runs many.

#[tokio::test]
async fn histories_end_as_acknowledged() {
    for seed in 1..=20 {
        let outcome = arrwdb_sim::run(seed, 120).await;
        let outcome = outcome.unwrap_or_else(|failure| panic!("seed {seed}: {failure:?}"));
        assert_eq!(outcome.operations, 120);
    }
}
