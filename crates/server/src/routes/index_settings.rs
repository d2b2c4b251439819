//! What a library is to be searched by, as bodies name it.
//!
//! Names, ranges and defaults are those of the engine's table: a type that is added there is read
//! here without a change.

use arrwdb_engine::IndexChange;
use arrwdb_engine::state::{IndexSpec, Metric, ParameterError, Quantization, Structure};

use crate::extract::read_json;
use crate::json::{Read, Reader};
use crate::limits::INDEX_SETTINGS_MAX;
use crate::problem::Problem;

/// Types that clients know from elsewhere. Those that the table does not have yet are refused with
/// other words than what nobody ever heard of.
const KNOWN_TYPES: [&str; 6] = ["brute_force", "kd_tree", "lsh", "hnsw", "ivf", "ivf_pq"];

/// `index_type`, `index_config` and `quantization_config` of one body, in whatever order they come.
#[derive(Debug, Default)]
pub(crate) struct IndexSettings {
    structure: Settings,
    quantization: Settings,
}

/// A name and numbers that go with it.
#[derive(Debug, Default)]
struct Settings {
    name: Option<String>,
    numbers: Vec<(String, u64)>,
    /// Whether something is given that is no name: which numbers go with it is then unknown.
    is_unreadable: bool,
}

/// What a name and numbers stand for.
type New<T> = fn(&str, &[(&str, u64)]) -> Result<T, ParameterError>;

/// One of the engine's tables, and where its parts are in a body.
struct Table<T> {
    /// Its names.
    names: &'static [&'static str],
    /// The object that holds the name; empty for the body itself.
    holder: &'static str,
    /// The field of the name.
    field: &'static str,
    /// The object that holds the numbers.
    config: &'static str,
    /// What the name and the numbers stand for.
    new: New<T>,
}

const STRUCTURES: Table<Structure> = Table {
    names: &Structure::TYPES,
    holder: "",
    field: "index_type",
    config: "index_config",
    new: Structure::new,
};

const QUANTIZATIONS: Table<Quantization> = Table {
    names: &Quantization::STRATEGIES,
    holder: "quantization_config",
    field: "strategy",
    config: "quantization_config",
    new: Quantization::new,
};

impl IndexSettings {
    /// Reads the value of `key`, if it is one of these.
    pub(crate) fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<()> {
        match key {
            "index_type" => self.structure.read_name(r),
            "index_config" => self.structure.read_numbers(r, None),
            "quantization_config" => self.quantization.read_numbers(r, Some("strategy")),
            _ignored => Ok(()),
        }
    }

    /// Reads the value of `key` of a body that asks for a rebuild.
    pub(crate) fn read_of_rebuild(&mut self, r: &mut Reader<'_>, key: &str) -> Read<()> {
        if matches!(key, "metric" | "distance_metric") {
            if !r.any()?.is_null() {
                r.fault("a library's metric is fixed when it is created");
            }
            return Ok(());
        }
        self.read(r, key)
    }

    /// Reads all of a body that asks for a rebuild of a library that is searched as `current` says.
    pub(crate) fn change(body: &[u8], current: IndexSpec) -> Result<IndexChange, Problem> {
        read_json(body, |r| {
            let mut settings = Self::default();
            r.object(|r, key| settings.read_of_rebuild(r, key))?;
            Ok(settings.resolve(r, current))
        })
    }

    /// What these make of a library that is searched as `current` says; what is wrong is noted.
    /// Numbers that are not named stay as they are where the name stays, and are the usual ones
    /// where it changes.
    pub(crate) fn resolve(&self, r: &mut Reader<'_>, current: IndexSpec) -> IndexChange {
        let structure = (current.structure.type_name(), current.structure.parameters());
        let quantization = (current.quantization.strategy(), current.quantization.parameters());
        IndexChange {
            structure: self.structure.resolve(r, &STRUCTURES, structure),
            quantization: self.quantization.resolve(r, &QUANTIZATIONS, quantization),
        }
    }
}

impl Settings {
    fn read_name(&mut self, r: &mut Reader<'_>) -> Read<()> {
        let faults = r.fault_count();
        self.name = r.string()?;
        self.is_unreadable |= r.fault_count() > faults;
        Ok(())
    }

    /// Reads an object of numbers; `name` is the key, if any, that is the name.
    fn read_numbers(&mut self, r: &mut Reader<'_>, name: Option<&str>) -> Read<()> {
        r.object(|r, key| {
            if name == Some(key) {
                return self.read_name(r);
            }
            // In the table's words no name stands for the type.
            if key.is_empty() {
                r.fault("a setting has a name");
                return Ok(());
            }
            if self.numbers.len() == INDEX_SETTINGS_MAX {
                r.fault(format!("there are at most {INDEX_SETTINGS_MAX} settings"));
                return Ok(());
            }
            if let Some(number) = r.setting()? {
                self.numbers.push((key.to_owned(), number));
            }
            Ok(())
        })?;
        Ok(())
    }

    fn resolve<T>(
        &self,
        r: &mut Reader<'_>,
        table: &Table<T>,
        (current, parameters): (&'static str, Vec<(&'static str, u64)>),
    ) -> Option<T> {
        if self.is_unreadable || (self.name.is_none() && self.numbers.is_empty()) {
            return None;
        }
        let name = self.name.as_deref().unwrap_or(current);
        let mut numbers: Vec<(&str, u64)> =
            self.numbers.iter().map(|(name, number)| (name.as_str(), *number)).collect();
        if name == current {
            let named = |name: &str| self.numbers.iter().any(|(given, _)| given == name);
            numbers.extend(parameters.into_iter().filter(|(name, _)| !named(name)));
        }
        // The table stops at the first fault; without its cause it finds the next.
        loop {
            let error = match (table.new)(name, &numbers) {
                Ok(resolved) => return Some(resolved),
                Err(error) if error.name.is_empty() => {
                    table.fault_name(r, name, error.detail);
                    return None;
                }
                Err(error) => error,
            };
            let given = numbers.len();
            numbers.retain(|(name, _)| *name != error.name);
            r.fault_within(table.config, &error.name, error.detail);
            if numbers.len() == given {
                return None;
            }
        }
    }
}

impl<T> Table<T> {
    fn fault_name(&self, r: &mut Reader<'_>, name: &str, detail: String) {
        let is_to_come = self.field == "index_type" && KNOWN_TYPES.contains(&name);
        let detail = if is_to_come {
            format!("{name} is not available in this version; use one of {}", self.names.join(", "))
        } else {
            detail
        };
        if self.holder.is_empty() {
            r.fault_at(self.field, detail);
        } else {
            r.fault_within(self.holder, self.field, detail);
        }
    }
}

/// Reads a metric by one of its names.
pub(crate) fn read_metric(r: &mut Reader<'_>) -> Read<Option<Metric>> {
    let Some(name) = r.string()? else { return Ok(None) };
    let metric = match name.as_str() {
        "euclidean" => Some(Metric::L2),
        "inner_product" | "ip" => Some(Metric::Dot),
        name => Metric::from_name(name),
    };
    if metric.is_none() {
        r.fault("must be one of cosine, dot (or inner_product, ip), l2 (or euclidean)");
    }
    Ok(metric)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str, current: IndexSpec) -> Result<IndexSpec, String> {
        let change = IndexSettings::change(body.as_bytes(), current);
        let change = change.map_err(|problem| problem.full_detail())?;
        Ok(IndexSpec {
            structure: change.structure.unwrap_or(current.structure),
            quantization: change.quantization.unwrap_or(current.quantization),
        })
    }

    #[test]
    fn every_type_and_strategy_of_the_table_is_read_with_its_own_parameters() {
        for name in Structure::TYPES {
            for strategy in Quantization::STRATEGIES {
                let structure = Structure::new(name, &[]).unwrap();
                let quantization = Quantization::new(strategy, &[]).unwrap();
                let object = |parameters: Vec<(&'static str, u64)>| -> String {
                    let each = parameters.iter().map(|(name, n)| format!(", \"{name}\": {n}"));
                    each.collect()
                };
                let body = format!(
                    r#"{{"index_config": {{{}}}, "quantization_config": {{"strategy": "{strategy}"{}}}, "index_type": "{name}"}}"#,
                    object(structure.parameters()).trim_start_matches(", "),
                    object(quantization.parameters()),
                );
                let expected = IndexSpec { structure, quantization };
                assert_eq!(read(&body, IndexSpec::default()), Ok(expected), "{body}");
            }
        }
    }

    #[test]
    fn what_is_not_named_stays_where_the_type_does() {
        let (plain, usual) = (IndexSpec::default(), Structure::new("hnsw", &[]).unwrap());
        let narrow = read(r#"{"index_type": "hnsw", "index_config": {"M": 8}}"#, plain).unwrap();
        assert_eq!(narrow.to_string(), "hnsw M=8 ef_construction=200 ef_search=50");
        let same = r#"{"index_type": "hnsw"}"#;
        assert_eq!(read(same, narrow), Ok(narrow), "the type that it has");
        assert_eq!(read(same, plain).unwrap().structure, usual);
        assert_eq!(read("{}", narrow), Ok(narrow));
        let more = r#"{"index_config": {"ef_search": 99}, "quantization_config": {"strategy": "scalar", "bits": 4}}"#;
        let more = read(more, narrow).unwrap();
        assert_eq!(more.to_string(), "hnsw M=8 ef_construction=200 ef_search=99, scalar bits=4");
        let hybrid = read(r#"{"quantization_config": {"strategy": "hybrid"}}"#, more).unwrap();
        let text = "hnsw M=8 ef_construction=200 ef_search=99, hybrid bits=8 rerank_top_k=100";
        assert_eq!(hybrid.to_string(), text, "another strategy has the usual numbers");
        assert_eq!(
            read(r#"{"index_type": "brute_force"}"#, more).unwrap().structure.parameters(),
            []
        );
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let body = r#"{"index_type": "hnsw", "index_config": {"M": 1, "ef_search": 0, "m/x": 3,
            "ef_construction": true}, "quantization_config": {"bits": 5, "strategy": "hybrid"}}"#;
        let faults = read(body, IndexSpec::default()).unwrap_err();
        let faults: Vec<&str> = faults.split("; /").collect();
        assert_eq!(faults[0], "/index_config/M: \"M\" is 1; it has to be 2 to 128");
        assert!(faults[1].starts_with("index_config/ef_construction: "), "{faults:?}");
        assert!(faults[2].starts_with("index_config/ef_search: "), "{faults:?}");
        assert!(faults[3].starts_with("index_config/m~1x: there is no \"m/x\""), "{faults:?}");
        assert!(faults[4].starts_with("quantization_config/bits: "), "{faults:?}");
        assert_eq!(faults.len(), 5);
    }

    #[test]
    fn a_type_that_is_known_from_elsewhere_is_not_available_and_others_are_not_there() {
        for name in KNOWN_TYPES.iter().filter(|name| !Structure::TYPES.contains(name)) {
            let body = format!(r#"{{"index_type": "{name}", "index_config": {{"any": 1}}}}"#);
            let fault = read(&body, IndexSpec::default()).unwrap_err();
            let start =
                format!("/index_type: {name} is not available in this version; use one of ");
            assert!(fault.starts_with(&start), "{fault}");
        }
        let fault = read(r#"{"index_type": "magic"}"#, IndexSpec::default()).unwrap_err();
        assert!(fault.starts_with("/index_type: there is no type \"magic\""), "{fault}");
        let fault = read(r#"{"quantization_config": {"strategy": "x"}}"#, IndexSpec::default());
        let fault = fault.unwrap_err();
        assert!(fault.starts_with("/quantization_config/strategy: there is no "), "{fault}");
    }

    #[test]
    fn a_body_of_very_many_settings_is_refused_soon() {
        let many: Vec<String> = (0..100_000).map(|n| format!("\"s{n}\": 1")).collect();
        let body = format!(r#"{{"index_config": {{{}}}}}"#, many.join(","));
        let fault = read(&body, IndexSpec::default()).unwrap_err();
        assert!(fault.contains("there are at most 32 settings"), "{fault}");
    }

    #[test]
    fn a_graph_is_walked_at_most_as_wide_as_a_library_may_ask_for() {
        let max = u64::from(crate::limits::EF_SEARCH_MAX);
        assert!(Structure::new("hnsw", &[("ef_search", max)]).is_ok());
        assert!(Structure::new("hnsw", &[("ef_search", max + 1)]).is_err());
        let max = u64::from(crate::limits::NPROBE_MAX);
        assert!(Structure::new("ivf", &[("nprobe", max)]).is_ok());
        assert!(Structure::new("ivf", &[("nprobe", max + 1)]).is_err());
    }
}
