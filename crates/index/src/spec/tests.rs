use super::{IndexSpec, Quantization, Structure};

#[test]
fn every_type_and_strategy_is_its_own_parameters() {
    for name in Structure::TYPES {
        let structure = Structure::new(name, &[]).unwrap();
        assert_eq!(structure.type_name(), name);
        assert_eq!(Structure::new(name, &structure.parameters()), Ok(structure));
    }
    for name in Quantization::STRATEGIES {
        let quantization = Quantization::new(name, &[]).unwrap();
        assert_eq!(quantization.strategy(), name);
        assert_eq!(Quantization::new(name, &quantization.parameters()), Ok(quantization));
    }
}

#[test]
fn what_is_unknown_or_out_of_range_is_named_with_what_there_is() {
    let detail = |result: Result<_, super::ParameterError>| result.unwrap_err().to_string();
    let structure = |parameters| detail(Structure::new("hnsw", parameters).map(drop));
    assert_eq!(structure(&[("M", 1)]), "\"M\" is 1; it has to be 2 to 128");
    let few = "\"ef_construction\" is 9; it has to be at least \"M\", 16";
    assert_eq!(structure(&[("ef_construction", 9)]), few);
    assert_eq!(structure(&[("M", 8), ("M", 8)]), "\"M\" is given twice");
    let names = "there is no \"m\": hnsw has \"M\", \"ef_construction\", \"ef_search\"";
    assert_eq!(structure(&[("m", 8)]), names);
    let flat = detail(Structure::new("brute_force", &[("M", 8)]).map(drop));
    assert_eq!(flat, "there is no \"M\": brute_force has no parameters");
    let types = detail(Structure::new("tree", &[]).map(drop));
    assert!(types.contains("\"brute_force\", \"kd_tree\""), "{types}");
    let bits = detail(Quantization::new("scalar", &[("bits", 5)]).map(drop));
    assert_eq!(bits, "\"bits\" is 5; it has to be 4 or 8");
}

#[test]
fn the_whole_object_of_the_original_with_its_defaults_is_any_strategy() {
    for name in Quantization::STRATEGIES {
        let whole = Quantization::new(name, &[("bits", 8), ("rerank_top_k", 100)]);
        assert_eq!(whole, Quantization::new(name, &[]), "{name}");
    }
    assert!(Quantization::new("none", &[("bits", 4)]).is_err(), "something is meant by it");
}

/// What data directories hold: a parameter that is refused one day must still be read.
#[test]
fn what_was_recorded_is_read_as_it_was_written() {
    let lists = |clusters, nprobe, use_pq, subvectors| {
        let names = ["n_clusters", "nprobe", "use_pq", "pq_subvectors"];
        names.into_iter().zip([clusters, nprobe, use_pq, subvectors]).collect::<Vec<_>>()
    };
    for (name, parameters) in [
        ("brute_force", vec![]),
        ("kd_tree", vec![("rebuild_threshold", 0)]),
        ("lsh", vec![("num_tables", 64), ("hash_size", 1)]),
        ("hnsw", vec![("M", 2), ("ef_construction", 4), ("ef_search", 10_000)]),
        ("ivf", lists(0, 64, 0, 0)),
        ("ivf", lists(65_536, 1, 0, 0)),
        ("ivf_pq", lists(0, 64, 1, 0)),
        ("ivf_pq", lists(256, 8, 1, 48)),
    ] {
        let read = Structure::new(name, &parameters).expect(name);
        assert_eq!((read.type_name(), read.parameters()), (name, parameters));
    }
    for (name, parameters) in [
        ("none", vec![]),
        ("scalar", vec![("bits", 4)]),
        ("hybrid", vec![("bits", 8), ("rerank_top_k", 1000)]),
        ("binary", vec![("rerank_top_k", 10)]),
        ("product", vec![("pq_subvectors", 16_384), ("rerank_top_k", 100)]),
    ] {
        let read = Quantization::new(name, &parameters).expect(name);
        assert_eq!((read.strategy(), read.parameters()), (name, parameters));
    }
}

#[test]
fn parameters_of_no_effect_are_refused() {
    let detail = |name, parameters| Structure::new(name, parameters).unwrap_err().to_string();
    let kept = detail("ivf_pq", &[("use_pq", 0)]);
    assert_eq!(kept, "\"ivf_pq\" has codes; ask for \"ivf\" to have none");
    for subvectors in [8, 48] {
        let given = [("pq_subvectors", subvectors)];
        let coded = Structure::new("ivf", &given).unwrap_err().to_string();
        assert_eq!(coded, "\"pq_subvectors\" is of the codes that \"use_pq\" asks for");
    }
    // What the original's clients always send.
    let whole = [("n_clusters", 256), ("nprobe", 8), ("use_pq", 0), ("pq_subvectors", 8)];
    let lists = Structure::new("ivf", &whole).unwrap();
    assert_eq!(lists.type_name(), "ivf");
    assert_eq!(Structure::new("ivf", &lists.parameters()), Ok(lists));
}

#[test]
fn codes_that_estimate_are_not_exact_and_fit_where_they_are_of_use() {
    let quantization = |name, parameters: &[_]| Quantization::new(name, parameters).unwrap();
    let product = quantization("product", &[("pq_subvectors", 9)]);
    for (name, exact) in
        [("none", true), ("scalar", true), ("hybrid", true), ("binary", false), ("product", false)]
    {
        let flat = IndexSpec::new(Structure::BruteForce, quantization(name, &[])).unwrap();
        assert_eq!(flat.is_exact(), exact, "{name}");
        let tree = Structure::new("kd_tree", &[]).unwrap();
        let fits = IndexSpec::new(tree, quantization(name, &[])).is_ok();
        assert_eq!(fits, name == "none", "{name}");
    }
    let lists = IndexSpec::new(Structure::new("ivf", &[]).unwrap(), product);
    assert!(lists.unwrap_err().to_string().contains("ask for \"ivf_pq\""));
    let flat = IndexSpec::new(Structure::BruteForce, product).unwrap();
    assert_eq!(flat.check_dimension(9), Ok(()));
    let error = flat.check_dimension(8).unwrap_err();
    assert_eq!(error.name, "pq_subvectors");
    assert_eq!(error.to_string(), "pq_subvectors is 1 to the dimension 8, not 9");
    let other = IndexSpec { quantization: quantization("product", &[]), ..flat };
    assert!(!flat.builds_as(other), "other codes");
    let wider = quantization("product", &[("pq_subvectors", 9), ("rerank_top_k", 500)]);
    assert!(flat.builds_as(IndexSpec { quantization: wider, ..flat }), "another search");
}

#[test]
fn what_only_changes_a_search_needs_no_other_build() {
    let spec = |ef, rerank| IndexSpec {
        structure: Structure::new("hnsw", &[("ef_search", ef)]).unwrap(),
        quantization: Quantization::new("hybrid", &[("rerank_top_k", rerank)]).unwrap(),
    };
    assert!(spec(10, 20).builds_as(spec(50, 100)));
    assert!(!spec(10, 20).builds_as(IndexSpec::default()));
    let other = Structure::new("hnsw", &[("M", 8)]).unwrap();
    assert!(!spec(10, 20).builds_as(IndexSpec { structure: other, ..spec(10, 20) }));
    assert_eq!(
        spec(10, 20).to_string(),
        "hnsw M=16 ef_construction=200 ef_search=10, hybrid bits=8 rerank_top_k=20"
    );
}
