//! all-MiniLM-L6-v2 in process, on the CPU: texts to unit vectors of 384 dimensions, the same
//! ones sentence-transformers gives.
//!
//! Every vector has cosine at least 0.9998 (bf16) or 0.99999 (f32) with the reference's. Results
//! stand in the order of the texts and do not depend on how they are batched or on the number of
//! threads, beyond rounding. Memory is bounded by [`TOKENS_PER_STEP`] per thread beside the texts'
//! own tokens.
//!
//! There is no `unsafe` here: vector arithmetic goes through `fearless_simd`, which picks the
//! CPU's instructions at run time, and bf16 matrix products through `numkong`.

mod attention;
mod encoder;
mod product;
mod tile;
mod tokens;
mod vector_math;
mod weights;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fearless_simd::{Level, dispatch};

use crate::model_files::ModelFiles;
use encoder::{Encoder, HIDDEN, State, TOKENS_MAX};
use product::{Bf16Product, F32Product, Product};
use tokens::{Sequence, WordPieces};
use weights::Tensors;

/// Tokens a thread works on at once (one sequence more at most).
pub const TOKENS_PER_STEP: usize = 512;

/// The number format of the matrix products; everything else is f32.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Bf16 where the CPU multiplies bf16 fast, else F32.
    Auto,
    /// Weights and activations rounded to bf16, sums in f32: twice as fast or more.
    Bf16,
    /// Everything in f32.
    F32,
}

/// Why the model could not be loaded or a text not be embedded.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A model file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The model file is not a safetensors file, or a tensor is missing.
    #[error("the model file is damaged or of another model: {0}")]
    ModelFile(#[from] safetensors::SafeTensorError),
    /// A tensor of the model file is not what this model has.
    #[error("tensor {name} has shape {found:?} of {dtype} instead of {expected:?} of F32")]
    Tensor {
        /// Its name in the file.
        name: String,
        /// The shape this model has there.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
        /// The number format in the file.
        dtype: String,
    },
    /// The tokenizer file is unusable, or it failed on a text.
    #[error("the tokenizer failed: {reason}")]
    Tokenizer {
        /// What it said.
        reason: String,
    },
    /// Memory for a matrix could not be had, or its shape was refused.
    #[error("a matrix product failed: {0}")]
    Product(numkong::TensorError),
}

impl From<numkong::TensorError> for LocalError {
    fn from(error: numkong::TensorError) -> LocalError {
        LocalError::Product(error)
    }
}

/// What [`LocalModel::embed`] gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// `texts * 384`, row-major, in the order of the texts; each row has unit length.
    pub vectors: Vec<f32>,
    /// Tokens that went through the model, special tokens included.
    pub tokens: u64,
    /// Texts whose end was left out, because they have more tokens than the model takes.
    pub truncated: u32,
}

/// The loaded model. Cloning it is cheap and shares the weights.
#[derive(Clone)]
pub struct LocalModel {
    shared: Arc<Shared>,
}

struct Shared {
    level: Level,
    threads: usize,
    word_pieces: WordPieces,
    weights: Weights,
}

enum Weights {
    Bf16(Encoder<Bf16Product>),
    F32(Encoder<F32Product>),
}

impl std::fmt::Debug for LocalModel {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("LocalModel")
            .field("precision", &self.precision())
            .field("threads", &self.shared.threads)
            .field("level", &self.shared.level)
            .finish_non_exhaustive()
    }
}

impl LocalModel {
    /// Reads both files (90 MB) and packs the weights, in about a tenth of a second; `threads`
    /// (at least 1) is how many threads one call of [`LocalModel::embed`] may use.
    pub fn load(
        files: &ModelFiles,
        precision: Precision,
        threads: usize,
    ) -> Result<LocalModel, LocalError> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|source| LocalError::Read { path: path.to_owned(), source })
        };
        let word_pieces = WordPieces::parse(&read(&files.tokenizer)?)?;
        let bytes = read(&files.model)?;
        let tensors = Tensors::parse(&bytes)?;
        let level = Level::new();
        let weights = match precision.resolve() {
            Precision::Auto | Precision::Bf16 => {
                Weights::Bf16(dispatch!(level, simd => Encoder::load(simd, &tensors))?)
            }
            Precision::F32 => {
                Weights::F32(dispatch!(level, simd => Encoder::load(simd, &tensors))?)
            }
        };
        let threads = threads.max(1);
        Ok(LocalModel { shared: Arc::new(Shared { level, threads, word_pieces, weights }) })
    }

    /// Values per vector: 384.
    pub fn dimension(&self) -> usize {
        HIDDEN
    }

    /// Tokens the model takes per text, its two special tokens included: 256.
    pub fn max_tokens(&self) -> usize {
        TOKENS_MAX
    }

    /// [`Precision::Bf16`] or [`Precision::F32`], whichever is in use.
    pub fn precision(&self) -> Precision {
        match self.shared.weights {
            Weights::Bf16(_) => Precision::Bf16,
            Weights::F32(_) => Precision::F32,
        }
    }

    /// Tokens of `text`, the two special tokens included and nothing cut.
    pub fn count_tokens(&self, text: &str) -> Result<usize, LocalError> {
        self.shared.word_pieces.count(text)
    }

    /// Embeds `texts` on the calling thread and up to `threads - 1` more; returns when all are
    /// done. No texts give no vectors. An empty text has the vector of an empty text, as in the
    /// reference.
    pub fn embed(&self, texts: &[&str]) -> Result<Embedded, LocalError> {
        self.shared.embed(texts)
    }
}

impl Precision {
    /// Decides [`Precision::Auto`] by the CPU.
    fn resolve(self) -> Precision {
        use numkong::capabilities::{available, cap};
        let fast = cap::GENOA | cap::SAPPHIREAMX | cap::GRANITEAMX | cap::DIAMOND | cap::NEONBFDOT;
        match self {
            Precision::Auto if available() & fast != 0 => Precision::Bf16,
            Precision::Auto => Precision::F32,
            Precision::Bf16 | Precision::F32 => self,
        }
    }
}

/// Sequences that go through the model together, as positions in the list of all.
struct Step {
    sequences: Vec<usize>,
    tokens: usize,
}

impl Shared {
    fn embed(&self, texts: &[&str]) -> Result<Embedded, LocalError> {
        let pieces = &self.word_pieces;
        let sequences = in_parallel(
            self.threads,
            texts.len(),
            || (),
            |(), number| pieces.sequence(texts[number]),
        )?;
        let steps = plan(&sequences, self.threads);
        let results = match &self.weights {
            Weights::Bf16(encoder) => self.run(encoder, &steps, &sequences)?,
            Weights::F32(encoder) => self.run(encoder, &steps, &sequences)?,
        };
        let mut vectors = vec![0.0; texts.len() * HIDDEN];
        for (step, rows) in steps.iter().zip(&results) {
            for (&sequence, row) in step.sequences.iter().zip(rows.chunks_exact(HIDDEN)) {
                vectors[sequence * HIDDEN..][..HIDDEN].copy_from_slice(row);
            }
        }
        let truncated = sequences.iter().map(|sequence| u32::from(sequence.truncated)).sum();
        let tokens = sequences.iter().map(|sequence| sequence.ids.len() as u64).sum();
        Ok(Embedded { vectors, tokens, truncated })
    }

    /// For each step one vector per sequence, in the step's order.
    fn run<P: Product>(
        &self,
        encoder: &Encoder<P>,
        steps: &[Step],
        sequences: &[Sequence],
    ) -> Result<Vec<Vec<f32>>, LocalError> {
        let level = self.level;
        let start = || {
            // AMX has to be asked for once per thread; elsewhere this changes nothing.
            numkong::capabilities::configure_thread();
            State::new()
        };
        in_parallel(self.threads, steps.len(), start, |state, number| {
            let step = &steps[number];
            let ids: Vec<&[u32]> =
                step.sequences.iter().map(|&number| sequences[number].ids.as_slice()).collect();
            let mut vectors = vec![0.0; ids.len() * HIDDEN];
            let output = vectors.as_mut_slice();
            dispatch!(level, simd => encoder.encode(simd, &ids, state, output))?;
            Ok(vectors)
        })
    }
}

/// Spreads the sequences over as few steps as the bound allows, a multiple of `threads` where
/// there are enough sequences, of nearly equal numbers of tokens: the longest sequence first,
/// always to the step with the fewest tokens.
fn plan(sequences: &[Sequence], threads: usize) -> Vec<Step> {
    let total: usize = sequences.iter().map(|sequence| sequence.ids.len()).sum();
    let rounds = total.div_ceil(TOKENS_PER_STEP * threads);
    let count = (rounds * threads).min(sequences.len());
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&number| std::cmp::Reverse(sequences[number].ids.len()));
    let mut steps: Vec<Step> =
        (0..count).map(|_| Step { sequences: Vec::new(), tokens: 0 }).collect();
    let mut lightest: std::collections::BinaryHeap<_> =
        (0..count).map(|step| std::cmp::Reverse((0, step))).collect();
    for number in order {
        if let Some(std::cmp::Reverse((tokens, step))) = lightest.pop() {
            let tokens = tokens + sequences[number].ids.len();
            steps[step].sequences.push(number);
            steps[step].tokens = tokens;
            lightest.push(std::cmp::Reverse((tokens, step)));
        }
    }
    steps
}

/// `work(0), work(1), .. work(count - 1)` on up to `threads` threads, the calling one included;
/// results in order, or the first error met. Each thread makes a state with `start` and hands it
/// to all of its work.
fn in_parallel<S, T: Send>(
    threads: usize,
    count: usize,
    start: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> Result<T, LocalError> + Sync,
) -> Result<Vec<T>, LocalError> {
    let threads = threads.min(count);
    if threads <= 1 {
        let mut state = start();
        return (0..count).map(|number| work(&mut state, number)).collect();
    }
    let next = AtomicUsize::new(0);
    let run = || -> Result<Vec<(usize, T)>, LocalError> {
        let mut state = start();
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(done);
            }
            done.push((number, work(&mut state, number)?));
        }
    };
    let mut results = std::thread::scope(|scope| {
        let helpers: Vec<_> = (1..threads).map(|_| scope.spawn(run)).collect();
        let mut results = run()?;
        for helper in helpers {
            match helper.join() {
                Ok(part) => results.extend(part?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, LocalError>(results)
    })?;
    results.sort_by_key(|(number, _)| *number);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
