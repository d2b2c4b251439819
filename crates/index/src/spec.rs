//! What structure a library's segments are searched by, as its owner asks for it.
//!
//! One table of names, ranges and defaults serves the API, the files and the documentation: a
//! structure is a type and a list of (name, number) parameters.

use std::fmt;

use crate::codes::{Bits, Scheme};
use crate::{hnsw, ivf, lsh};

/// The structure, with its parameters.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Structure {
    /// Every row is scored: exact.
    #[default]
    BruteForce,
    /// A tree of boxes: exact, and quick where vectors have few dimensions.
    KdTree {
        /// Taken from clients of the original, whose trees were built anew after so many changes;
        /// segments here are built anew as they are merged.
        rebuild_threshold: u32,
    },
    /// Random hyperplanes: rows on the same sides of them as the query.
    Lsh {
        /// How it is built.
        build: lsh::Config,
    },
    /// Inverted lists: rows are grouped, and the groups nearest to the query scanned.
    Ivf {
        /// How it is built.
        build: ivf::Config,
        /// How many lists a search scans, where it says nothing.
        nprobe: u32,
    },
    /// A hierarchical navigable small world.
    Hnsw {
        /// How it is built.
        build: hnsw::Config,
        /// How many of the nearest rows a walk keeps, where a search says nothing.
        ef_search: u32,
    },
}

/// What is kept of a row in memory, to be scored in place of its vector.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Nothing: vectors are scored.
    #[default]
    None,
    /// Scalar codes alone choose the rows; the vectors give the distances of those chosen.
    Scalar {
        /// Bits of each number.
        bits: Bits,
    },
    /// Scalar codes choose candidates, and the vectors choose among those.
    Hybrid {
        /// Bits of each number.
        bits: Bits,
        /// How many candidates.
        rerank_top_k: u32,
    },
    /// One bit of each number chooses candidates, and the vectors choose among those.
    Binary {
        /// How many candidates, at least; a scan takes all that the bounds of their bits leave.
        rerank_top_k: u32,
    },
    /// Codes of 4 bits for each of some parts choose candidates, and the vectors choose among those.
    Product {
        /// Parts of a row, 1 to the dimension; half of the dimension if not said. More cost memory
        /// and time and make estimates nearer.
        pq_subvectors: Option<u32>,
        /// How many candidates, at least.
        rerank_top_k: u32,
    },
}

/// A structure and what its rows are scored by.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct IndexSpec {
    /// The structure.
    pub structure: Structure,
    /// What rows are scored by.
    pub quantization: Quantization,
}

/// A parameter that there is not, or that is out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ParameterError {
    /// Its name; empty if the type itself is meant.
    pub name: String,
    /// What is wrong, with the range or the names that there are.
    pub detail: String,
}

/// A name with the least, the greatest and the usual number.
struct Parameter {
    name: &'static str,
    min: u64,
    max: u64,
    default: u64,
}

const M: Parameter = Parameter { name: "M", min: 2, max: 128, default: 16 };
const EF_CONSTRUCTION: Parameter =
    Parameter { name: "ef_construction", min: 4, max: 4096, default: 200 };
const EF_SEARCH: Parameter = Parameter { name: "ef_search", min: 1, max: 10_000, default: 50 };
const REBUILD_THRESHOLD: Parameter =
    Parameter { name: "rebuild_threshold", min: 0, max: 1 << 30, default: 100 };
const NUM_TABLES: Parameter = Parameter { name: "num_tables", min: 1, max: 64, default: 10 };
const HASH_SIZE: Parameter = Parameter { name: "hash_size", min: 1, max: 24, default: 10 };
/// 0: about 4 sqrt(rows) in each segment.
const N_CLUSTERS: Parameter = Parameter { name: "n_clusters", min: 0, max: 65_536, default: 0 };
const NPROBE: Parameter = Parameter { name: "nprobe", min: 1, max: 65_536, default: 64 };
const USE_PQ: Parameter = Parameter { name: "use_pq", min: 0, max: 1, default: 0 };
/// 0: half as many as dimensions.
const PQ_SUBVECTORS: Parameter =
    Parameter { name: "pq_subvectors", min: 0, max: 16_384, default: 0 };
const PQ_SUBVECTORS_ORIGINAL: u64 = 8;
const BITS: Parameter = Parameter { name: "bits", min: 4, max: 8, default: 8 };
const RERANK_TOP_K: Parameter =
    Parameter { name: "rerank_top_k", min: 10, max: 1000, default: 100 };

/// Parameters that were given, each used once.
struct Given<'a> {
    of: &'static str,
    left: Vec<(&'a str, u64)>,
    known: Vec<&'static str>,
}

impl Structure {
    /// Names of every type.
    pub const TYPES: [&'static str; 6] = ["brute_force", "kd_tree", "lsh", "hnsw", "ivf", "ivf_pq"];

    /// The type's name in the API and in files.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::BruteForce => "brute_force",
            Self::KdTree { .. } => "kd_tree",
            Self::Lsh { .. } => "lsh",
            Self::Ivf { build, .. } => {
                if build.use_pq {
                    "ivf_pq"
                } else {
                    "ivf"
                }
            }
            Self::Hnsw { .. } => "hnsw",
        }
    }

    /// The structure of this type and these parameters; what is not given has its default.
    pub fn new(type_name: &str, parameters: &[(&str, u64)]) -> Result<Self, ParameterError> {
        match type_name {
            "brute_force" => {
                Given::new("brute_force", parameters)?.end()?;
                Ok(Self::BruteForce)
            }
            "kd_tree" => {
                let mut given = Given::new("kd_tree", parameters)?;
                let rebuild_threshold = given.take(&REBUILD_THRESHOLD)?;
                given.end()?;
                Ok(Self::KdTree { rebuild_threshold })
            }
            "lsh" => {
                let mut given = Given::new("lsh", parameters)?;
                let (tables, bits) = (given.take(&NUM_TABLES)?, given.take(&HASH_SIZE)?);
                given.end()?;
                // Both are in the range that is checked there too.
                let build = lsh::Config::new(tables, bits).unwrap_or_default();
                Ok(Self::Lsh { build })
            }
            "hnsw" => {
                let mut given = Given::new("hnsw", parameters)?;
                let m = given.take(&M)?;
                let ef_construction = given.take(&EF_CONSTRUCTION)?;
                let ef_search = given.take(&EF_SEARCH)?;
                given.end()?;
                if ef_construction < m {
                    let detail = format!(
                        "\"ef_construction\" is {ef_construction}; it has to be at least \"M\", {m}"
                    );
                    return Err(ParameterError { name: EF_CONSTRUCTION.name.into(), detail });
                }
                let build = hnsw::Config { m, ef_construction };
                Ok(Self::Hnsw { build, ef_search })
            }
            "ivf" | "ivf_pq" => Self::inverted_lists(type_name == "ivf_pq", parameters),
            _ => Err(ParameterError {
                name: String::new(),
                detail: format!(
                    "there is no type \"{type_name}\"; it has to be one of {}",
                    list(&Self::TYPES)
                ),
            }),
        }
    }

    fn inverted_lists(pq: bool, parameters: &[(&str, u64)]) -> Result<Self, ParameterError> {
        let mut given = Given::new(if pq { "ivf_pq" } else { "ivf" }, parameters)?;
        let clusters = given.take(&N_CLUSTERS)?;
        let nprobe = given.take(&NPROBE)?;
        let use_pq = given.take(&Parameter { default: pq.into(), ..USE_PQ })? == 1;
        let subvectors = given.take(&PQ_SUBVECTORS)?;
        given.end()?;
        if pq && !use_pq {
            let detail = "\"ivf_pq\" has codes; ask for \"ivf\" to have none".into();
            return Err(ParameterError { name: USE_PQ.name.into(), detail });
        }
        // The original's own number, which its clients send with the rest whether or not it is of effect.
        let of_original = u64::from(subvectors) == PQ_SUBVECTORS_ORIGINAL
            && parameters.iter().any(|(name, _value)| *name == USE_PQ.name);
        if !use_pq && subvectors > 0 && !of_original {
            let detail = "\"pq_subvectors\" is of the codes that \"use_pq\" asks for".into();
            return Err(ParameterError { name: PQ_SUBVECTORS.name.into(), detail });
        }
        let some = |number: u32| (number > 0).then_some(number);
        let build = ivf::Config {
            n_clusters: some(clusters),
            use_pq,
            pq_subvectors: some(subvectors).filter(|_parts| use_pq),
        };
        Ok(Self::Ivf { build, nprobe })
    }

    /// Refuses what vectors of this dimension cannot have.
    pub fn check_dimension(self, dims: usize) -> Result<(), ParameterError> {
        match self {
            Self::Ivf { build, .. } => check_subvectors(build, dims),
            Self::BruteForce | Self::KdTree { .. } | Self::Lsh { .. } | Self::Hnsw { .. } => Ok(()),
        }
    }

    /// Every parameter with its number.
    pub fn parameters(self) -> Vec<(&'static str, u64)> {
        match self {
            Self::BruteForce => Vec::new(),
            Self::KdTree { rebuild_threshold } => {
                vec![(REBUILD_THRESHOLD.name, rebuild_threshold.into())]
            }
            Self::Lsh { build } => vec![
                (NUM_TABLES.name, build.num_tables().into()),
                (HASH_SIZE.name, build.hash_size().into()),
            ],
            Self::Ivf { build, nprobe } => vec![
                (N_CLUSTERS.name, build.n_clusters.unwrap_or(0).into()),
                (NPROBE.name, nprobe.into()),
                (USE_PQ.name, build.use_pq.into()),
                (PQ_SUBVECTORS.name, build.pq_subvectors.unwrap_or(0).into()),
            ],
            Self::Hnsw { build, ef_search } => vec![
                (M.name, build.m.into()),
                (EF_CONSTRUCTION.name, build.ef_construction.into()),
                (EF_SEARCH.name, ef_search.into()),
            ],
        }
    }
}

/// What is wrong with the parts of a code, if anything is.
fn check_subvectors(config: ivf::Config, dims: usize) -> Result<(), ParameterError> {
    config.check(dims).map_err(|error| {
        let name = PQ_SUBVECTORS.name.into();
        ParameterError { name, detail: error.to_string() }
    })
}

impl Quantization {
    /// Names of every strategy.
    pub const STRATEGIES: [&'static str; 5] = ["none", "scalar", "hybrid", "binary", "product"];

    /// The strategy's name in the API and in files.
    pub const fn strategy(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Scalar { .. } => "scalar",
            Self::Hybrid { .. } => "hybrid",
            Self::Binary { .. } => "binary",
            Self::Product { .. } => "product",
        }
    }

    /// The quantisation of this strategy and these parameters; what is not given has its default.
    pub fn new(strategy: &str, parameters: &[(&str, u64)]) -> Result<Self, ParameterError> {
        match strategy {
            "none" => {
                let mut given = Given::new("none", parameters)?;
                given.leave_usual(&[&BITS, &RERANK_TOP_K]);
                given.end()?;
                Ok(Self::None)
            }
            "scalar" => {
                let mut given = Given::new("scalar", parameters)?;
                let bits = given.take_bits()?;
                given.leave_usual(&[&RERANK_TOP_K]);
                given.end()?;
                Ok(Self::Scalar { bits })
            }
            "hybrid" => {
                let mut given = Given::new("hybrid", parameters)?;
                let bits = given.take_bits()?;
                let rerank_top_k = given.take(&RERANK_TOP_K)?;
                given.end()?;
                Ok(Self::Hybrid { bits, rerank_top_k })
            }
            "binary" => {
                let mut given = Given::new("binary", parameters)?;
                let rerank_top_k = given.take(&RERANK_TOP_K)?;
                given.leave_usual(&[&BITS]);
                given.end()?;
                Ok(Self::Binary { rerank_top_k })
            }
            "product" => {
                let mut given = Given::new("product", parameters)?;
                let subvectors = given.take(&PQ_SUBVECTORS)?;
                let rerank_top_k = given.take(&RERANK_TOP_K)?;
                given.leave_usual(&[&BITS]);
                given.end()?;
                let pq_subvectors = (subvectors > 0).then_some(subvectors);
                Ok(Self::Product { pq_subvectors, rerank_top_k })
            }
            _ => Err(ParameterError {
                name: String::new(),
                detail: format!(
                    "there is no strategy \"{strategy}\"; it has to be one of {}",
                    list(&Self::STRATEGIES)
                ),
            }),
        }
    }

    /// Every parameter with its number.
    pub fn parameters(self) -> Vec<(&'static str, u64)> {
        match self {
            Self::None => Vec::new(),
            Self::Scalar { bits } => vec![(BITS.name, bits.count())],
            Self::Hybrid { bits, rerank_top_k } => {
                vec![(BITS.name, bits.count()), (RERANK_TOP_K.name, rerank_top_k.into())]
            }
            Self::Binary { rerank_top_k } => vec![(RERANK_TOP_K.name, rerank_top_k.into())],
            Self::Product { pq_subvectors, rerank_top_k } => vec![
                (PQ_SUBVECTORS.name, pq_subvectors.unwrap_or(0).into()),
                (RERANK_TOP_K.name, rerank_top_k.into()),
            ],
        }
    }

    /// How rows are encoded, where they are.
    pub const fn scheme(self) -> Option<Scheme> {
        match self {
            Self::None => None,
            Self::Scalar { bits } | Self::Hybrid { bits, .. } => Some(Scheme::Scalar(bits)),
            Self::Binary { .. } => Some(Scheme::Binary),
            Self::Product { pq_subvectors, .. } => Some(Scheme::Product(pq_subvectors)),
        }
    }

    /// Whether codes rule out no row that is near: what is far by them is far.
    const fn is_certain(self) -> bool {
        match self {
            Self::None | Self::Scalar { .. } | Self::Hybrid { .. } => true,
            Self::Binary { .. } | Self::Product { .. } => false,
        }
    }

    /// Refuses what vectors of this dimension cannot have.
    pub fn check_dimension(self, dims: usize) -> Result<(), ParameterError> {
        match self {
            Self::None | Self::Scalar { .. } | Self::Hybrid { .. } | Self::Binary { .. } => Ok(()),
            Self::Product { pq_subvectors, .. } => check_subvectors(
                ivf::Config { pq_subvectors, use_pq: true, n_clusters: None },
                dims,
            ),
        }
    }
}

impl IndexSpec {
    /// The type's name in the API and in files.
    pub const fn name(self) -> &'static str {
        self.structure.type_name()
    }

    /// Whether a structure built as `self` says serves a library that asks for `other`: they
    /// differ at most in how they are searched.
    pub fn builds_as(self, other: Self) -> bool {
        let structure = match (self.structure, other.structure) {
            (Structure::Hnsw { build, .. }, Structure::Hnsw { build: other, .. }) => build == other,
            (Structure::Ivf { build, .. }, Structure::Ivf { build: other, .. }) => build == other,
            (Structure::KdTree { .. }, Structure::KdTree { .. }) => true,
            (one, other) => one == other,
        };
        structure && self.quantization.scheme() == other.quantization.scheme()
    }

    /// The structure and what its rows are scored by, where the two go together.
    pub fn new(structure: Structure, quantization: Quantization) -> Result<Self, ParameterError> {
        let exact = matches!(structure, Structure::KdTree { .. });
        if exact && quantization != Quantization::None {
            let detail = format!(
                "kd_tree finds the nearest by their vectors: with it the strategy of quantization_config \
                 is \"none\", not \"{}\"",
                quantization.strategy()
            );
            return Err(ParameterError { name: String::new(), detail });
        }
        let coded = matches!(structure, Structure::Ivf { build, .. } if build.use_pq);
        if coded && quantization != Quantization::None {
            let detail = format!(
                "ivf_pq has codes of its own: with it the strategy of quantization_config is \"none\", \
                 not \"{}\"",
                quantization.strategy()
            );
            return Err(ParameterError { name: String::new(), detail });
        }
        let lists = matches!(structure, Structure::Ivf { .. });
        if lists && matches!(quantization, Quantization::Product { .. }) {
            let detail = "lists have product codes of their own: ask for \"ivf_pq\", whose \
                          quantization is \"none\"";
            return Err(ParameterError { name: String::new(), detail: detail.into() });
        }
        Ok(Self { structure, quantization })
    }

    /// Refuses what vectors of this dimension cannot have.
    pub fn check_dimension(self, dims: usize) -> Result<(), ParameterError> {
        self.structure.check_dimension(dims)?;
        self.quantization.check_dimension(dims)
    }

    /// Whether a search finds the nearest rows and never others.
    pub fn is_exact(self) -> bool {
        let every_row = matches!(self.structure, Structure::BruteForce | Structure::KdTree { .. });
        every_row && self.quantization.is_certain()
    }

    /// Whether segments have anything beside their rows.
    pub fn is_plain(self) -> bool {
        self == Self::default()
    }
}

impl<'a> Given<'a> {
    fn new(of: &'static str, parameters: &[(&'a str, u64)]) -> Result<Self, ParameterError> {
        for (place, (name, _)) in parameters.iter().enumerate() {
            if parameters[..place].iter().any(|(earlier, _)| earlier == name) {
                let detail = format!("\"{name}\" is given twice");
                return Err(ParameterError { name: (*name).into(), detail });
            }
        }
        Ok(Self { of, left: parameters.to_vec(), known: Vec::new() })
    }

    fn take(&mut self, parameter: &Parameter) -> Result<u32, ParameterError> {
        self.known.push(parameter.name);
        let at = self.left.iter().position(|(name, _)| *name == parameter.name);
        let value = at.map_or(parameter.default, |at| self.left.swap_remove(at).1);
        let in_range = (parameter.min..=parameter.max).contains(&value);
        u32::try_from(value).ok().filter(|_| in_range).ok_or_else(|| ParameterError {
            name: parameter.name.into(),
            detail: format!(
                "\"{}\" is {value}; it has to be {} to {}",
                parameter.name, parameter.min, parameter.max
            ),
        })
    }

    fn take_bits(&mut self) -> Result<Bits, ParameterError> {
        let bits = self.take(&BITS)?;
        Bits::of(bits).ok_or_else(|| ParameterError {
            name: BITS.name.into(),
            detail: format!("\"bits\" is {bits}; it has to be 4 or 8"),
        })
    }

    /// Leaves out what is of no effect and has its usual number: clients that always send the whole
    /// object of the original mean nothing by it.
    fn leave_usual(&mut self, unused: &[&Parameter]) {
        let usual = |name: &str, value| {
            unused.iter().any(|unused| (unused.name, unused.default) == (name, value))
        };
        self.left.retain(|(name, value)| !usual(name, *value));
    }

    fn end(self) -> Result<(), ParameterError> {
        let Some((name, _)) = self.left.first() else { return Ok(()) };
        let known = if self.known.is_empty() {
            "has no parameters".into()
        } else {
            format!("has {}", list(&self.known))
        };
        let detail = format!("there is no \"{name}\": {} {known}", self.of);
        Err(ParameterError { name: (*name).into(), detail })
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for IndexSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.structure.type_name())?;
        for (name, value) in self.structure.parameters() {
            write!(f, " {name}={value}")?;
        }
        if self.quantization != Quantization::None {
            write!(f, ", {}", self.quantization.strategy())?;
            for (name, value) in self.quantization.parameters() {
                write!(f, " {name}={value}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
