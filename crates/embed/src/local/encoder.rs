//! The forward pass of all-MiniLM-L6-v2 (a BERT of six layers) over a ragged batch: the tokens
//! of all sequences stand one after another, so that there is no padding. What works on single
//! tokens (linear layers, normalisation, GELU) runs over blocks of [`BLOCK_ROWS`] tokens;
//! attention runs sequence by sequence.

use fearless_simd::prelude::*;
use numkong::Tensor;

use super::LocalError;
use super::attention::{AttentionScratch, Head, attend};
use super::product::{Element, Product, TILE_COLUMNS};
use super::vector_math::{LayerNorm, add_with_bias, gelu_with_bias, layer_norm, scale, sum_into};
use super::weights::Tensors;

const LAYERS: usize = 6;
/// Values per token between layers, and of an embedding.
pub(super) const HIDDEN: usize = 384;
const HEADS: usize = 12;
/// Values per token and attention head.
pub(super) const HEAD_SIZE: usize = HIDDEN / HEADS;
const INTERMEDIATE: usize = 1536;
/// Word pieces the model knows.
pub(super) const VOCABULARY: usize = 30_522;
/// Positions of the model's table, of which [`TOKENS_MAX`] are used.
const POSITIONS: usize = 512;
/// The longest sequence, its two special tokens included: what the model was tuned with.
pub(super) const TOKENS_MAX: usize = 256;

/// Tokens that go through the linear layers together: their inputs fit the second cache.
pub(super) const BLOCK_ROWS: usize = 128;

const _: () = assert!(TILE_COLUMNS.is_multiple_of(HEAD_SIZE) && TILE_COLUMNS < 2 * BLOCK_ROWS);
const _: () =
    assert!(HIDDEN.is_multiple_of(TILE_COLUMNS) && INTERMEDIATE.is_multiple_of(TILE_COLUMNS));

/// A linear layer and its bias.
struct Linear<P> {
    product: P,
    bias: Vec<f32>,
}

struct Layer<P> {
    /// Queries, keys and values side by side, `3 * HIDDEN` outputs.
    attention_input: Linear<P>,
    attention_output: Linear<P>,
    attention_norm: LayerNorm,
    expand: Linear<P>,
    contract: Linear<P>,
    output_norm: LayerNorm,
}

/// The model's weights, packed for one product.
pub(super) struct Encoder<P> {
    /// `VOCABULARY * HIDDEN`.
    words: Vec<f32>,
    /// Position plus token type 0, `POSITIONS * HIDDEN`.
    positions: Vec<f32>,
    embedding_norm: LayerNorm,
    layers: Vec<Layer<P>>,
}

impl<P: Product> Encoder<P> {
    /// Reads and packs the weights for the vector width of `simd`.
    pub(super) fn load<S: Simd>(simd: S, tensors: &Tensors<'_>) -> Result<Self, LocalError> {
        let mut positions =
            tensors.values("embeddings.position_embeddings.weight", &[POSITIONS, HIDDEN])?;
        let types = tensors.values("embeddings.token_type_embeddings.weight", &[2, HIDDEN])?;
        for position in positions.chunks_exact_mut(HIDDEN) {
            for (value, first_type) in position.iter_mut().zip(&types) {
                *value += first_type;
            }
        }
        let layers = (0..LAYERS).map(|number| load_layer(simd, tensors, number));
        Ok(Encoder {
            words: tensors.values("embeddings.word_embeddings.weight", &[VOCABULARY, HIDDEN])?,
            positions,
            embedding_norm: load_norm(tensors, "embeddings.LayerNorm")?,
            layers: layers.collect::<Result<_, _>>()?,
        })
    }

    /// Writes one unit vector per sequence to `vectors`, `sequences * HIDDEN`. A sequence has 1
    /// to [`TOKENS_MAX`] ids, each below [`VOCABULARY`].
    pub(super) fn encode<S: Simd>(
        &self,
        simd: S,
        sequences: &[&[u32]],
        state: &mut State<P::Element>,
        vectors: &mut [f32],
    ) -> Result<(), LocalError> {
        state.prepare(sequences)?;
        self.embed_tokens(simd, sequences, state);
        for layer in &self.layers {
            layer.project_heads(simd, state)?;
            attend_all(simd, state);
            layer.finish(simd, state)?;
        }
        pool(simd, state, vectors);
        Ok(())
    }

    fn embed_tokens<S: Simd>(&self, simd: S, sequences: &[&[u32]], state: &mut State<P::Element>) {
        let tokens = sequences.iter().flat_map(|ids| ids.iter().enumerate());
        simd.vectorize(
            #[inline(always)]
            || {
                for ((position, &id), row) in tokens.zip(state.hidden.chunks_exact_mut(HIDDEN)) {
                    let word = &self.words[id as usize * HIDDEN..][..HIDDEN];
                    let position = &self.positions[position * HIDDEN..][..HIDDEN];
                    sum_into(simd, word, position, row);
                    layer_norm(simd, &self.embedding_norm, row);
                }
            },
        );
    }
}

impl<P: Product> Layer<P> {
    /// Fills the heads' queries, keys and values from the hidden state.
    fn project_heads<S: Simd>(
        &self,
        simd: S,
        state: &mut State<P::Element>,
    ) -> Result<(), LocalError> {
        let State { hidden, heads, full, tail, tokens, .. } = state;
        for (number, rows) in hidden.chunks(BLOCK_ROWS * HIDDEN).enumerate() {
            let block = if rows.len() == BLOCK_ROWS * HIDDEN { &mut *full } else { &mut *tail };
            let Some(block) = block else { continue };
            let first = number * BLOCK_ROWS;
            block.set_input(simd, rows);
            let Linear { product, bias } = &self.attention_input;
            product.multiply(simd, &block.input, &mut block.tile, |column, tile| {
                let bias = &bias[column..][..TILE_COLUMNS];
                simd.vectorize(
                    #[inline(always)]
                    || {
                        for (row, values) in
                            tile.chunks_exact(TILE_COLUMNS).take(block.rows).enumerate()
                        {
                            for at in (0..TILE_COLUMNS).step_by(HEAD_SIZE) {
                                let head = (column + at) / HEAD_SIZE;
                                let target = (head * *tokens + first + row) * HEAD_SIZE;
                                let target = &mut heads[target..][..HEAD_SIZE];
                                let values = &values[at..][..HEAD_SIZE];
                                sum_into(simd, values, &bias[at..][..HEAD_SIZE], target);
                            }
                        }
                    },
                );
            })?;
        }
        Ok(())
    }

    /// Everything after attention: its output layer, the feed-forward layers, both residuals and
    /// normalisations.
    fn finish<S: Simd>(&self, simd: S, state: &mut State<P::Element>) -> Result<(), LocalError> {
        let State { hidden, context, full, tail, .. } = state;
        let blocks = hidden.chunks_mut(BLOCK_ROWS * HIDDEN);
        for (rows, context) in blocks.zip(context.chunks(BLOCK_ROWS * HIDDEN)) {
            let block = if rows.len() == BLOCK_ROWS * HIDDEN { &mut *full } else { &mut *tail };
            let Some(block) = block else { continue };
            block.input.as_mut_slice()[..context.len()].copy_from_slice(context);
            let Block { input, tile, .. } = block;
            add_linear(simd, &self.attention_output, input, tile, rows)?;
            normalise(simd, &self.attention_norm, rows);
            block.set_input(simd, rows);
            block.expand(simd, &self.expand)?;
            let Block { expanded, tile, .. } = block;
            add_linear(simd, &self.contract, expanded, tile, rows)?;
            normalise(simd, &self.output_norm, rows);
        }
        Ok(())
    }
}

/// `rows += input * transpose(weights) + bias`, the residual connection around a layer.
fn add_linear<S: Simd, P: Product>(
    simd: S,
    linear: &Linear<P>,
    input: &Tensor<P::Element>,
    tile: &mut Tensor<f32>,
    rows: &mut [f32],
) -> Result<(), LocalError> {
    linear.product.multiply(simd, input, tile, |column, tile| {
        let bias = &linear.bias[column..][..TILE_COLUMNS];
        simd.vectorize(
            #[inline(always)]
            || {
                for (values, row) in
                    tile.chunks_exact(TILE_COLUMNS).zip(rows.chunks_exact_mut(HIDDEN))
                {
                    add_with_bias(simd, values, bias, &mut row[column..][..TILE_COLUMNS]);
                }
            },
        );
    })
}

fn normalise<S: Simd>(simd: S, norm: &LayerNorm, rows: &mut [f32]) {
    simd.vectorize(
        #[inline(always)]
        || {
            for row in rows.chunks_exact_mut(HIDDEN) {
                layer_norm(simd, norm, row);
            }
        },
    );
}

fn attend_all<S: Simd, E: Element>(simd: S, state: &mut State<E>) {
    let State { heads, context, attention, lengths, tokens, .. } = state;
    let part = *tokens * HIDDEN;
    let (queries, rest) = heads.split_at(part);
    let (keys, values) = rest.split_at(part);
    let mut first = 0;
    for &length in lengths.iter() {
        for head in 0..HEADS {
            let start = (head * *tokens + first) * HEAD_SIZE;
            let range = start..start + length * HEAD_SIZE;
            let input = Head {
                queries: &queries[range.clone()],
                keys: &keys[range.clone()],
                values: &values[range],
            };
            let output = &mut context[first * HIDDEN + head * HEAD_SIZE..];
            simd.vectorize(
                #[inline(always)]
                || attend(simd, input, attention, output),
            );
        }
        first += length;
    }
}

/// The mean of each sequence's token vectors, scaled to unit length.
fn pool<S: Simd, E: Element>(simd: S, state: &State<E>, vectors: &mut [f32]) {
    let mut rows = state.hidden.chunks_exact(HIDDEN);
    let zero = [0.0; HIDDEN];
    for (&length, vector) in state.lengths.iter().zip(vectors.chunks_exact_mut(HIDDEN)) {
        vector.fill(0.0);
        simd.vectorize(
            #[inline(always)]
            || {
                for row in rows.by_ref().take(length) {
                    add_with_bias(simd, row, &zero, vector);
                }
                let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
                // A vector without a direction stays zero rather than becoming NaN.
                scale(simd, norm.max(f32::MIN_POSITIVE).recip(), vector);
            },
        );
    }
}

/// Everything a forward pass writes to, reused by the next one on the same thread.
pub(super) struct State<E: Element> {
    tokens: usize,
    /// Tokens per sequence.
    lengths: Vec<usize>,
    /// `tokens * HIDDEN`.
    hidden: Vec<f32>,
    /// Queries, keys, values; each `HEADS * tokens * HEAD_SIZE`.
    heads: Vec<f32>,
    /// Attention's result, `tokens * HIDDEN`.
    context: Vec<E>,
    attention: AttentionScratch,
    /// Buffers for a block of `BLOCK_ROWS` tokens, where there are that many.
    full: Option<Block<E>>,
    /// Buffers for the last, smaller block, where there is one.
    tail: Option<Block<E>>,
}

impl<E: Element> State<E> {
    /// An empty state; its buffers grow with the first use and are kept for the next.
    pub(super) fn new() -> State<E> {
        State {
            tokens: 0,
            lengths: Vec::new(),
            hidden: Vec::new(),
            heads: Vec::new(),
            context: Vec::new(),
            attention: AttentionScratch::new(),
            full: None,
            tail: None,
        }
    }

    /// Makes room for these sequences. What the buffers held stays: all of it is overwritten.
    fn prepare(&mut self, sequences: &[&[u32]]) -> Result<(), LocalError> {
        self.lengths.clear();
        self.lengths.extend(sequences.iter().map(|ids| ids.len()));
        self.tokens = self.lengths.iter().sum();
        self.hidden.resize(self.tokens * HIDDEN, 0.0);
        self.heads.resize(3 * self.tokens * HIDDEN, 0.0);
        self.context.resize(self.tokens * HIDDEN, E::default());
        let tail = self.tokens % BLOCK_ROWS;
        if self.tokens >= BLOCK_ROWS && self.full.is_none() {
            self.full = Some(Block::new(BLOCK_ROWS)?);
        }
        if tail > 0 && self.tail.as_ref().is_none_or(|block| block.rows != tail) {
            self.tail = Some(Block::new(tail)?);
        }
        Ok(())
    }
}

/// Buffers for a block of tokens on its way through the linear layers.
struct Block<E: Element> {
    /// Tokens; the tensors may have a few rows more, see [`padded_rows`].
    rows: usize,
    /// `rows * HIDDEN`.
    input: Tensor<E>,
    /// `rows * INTERMEDIATE`.
    expanded: Tensor<E>,
    /// `rows * TILE_COLUMNS`.
    tile: Tensor<f32>,
}

/// `numkong` has a fast path for row counts that are multiples of four, and another for few rows
/// whatever their number.
fn padded_rows(rows: usize) -> usize {
    if rows > TILE_COLUMNS / 2 { rows.next_multiple_of(4) } else { rows }
}

impl<E: Element> Block<E> {
    fn new(rows: usize) -> Result<Block<E>, LocalError> {
        let padded = padded_rows(rows);
        Ok(Block {
            rows,
            input: Tensor::try_full(&[padded, HIDDEN], E::default())?,
            expanded: Tensor::try_full(&[padded, INTERMEDIATE], E::default())?,
            tile: Tensor::try_full(&[padded, TILE_COLUMNS], 0.0)?,
        })
    }

    fn set_input<S: Simd>(&mut self, simd: S, rows: &[f32]) {
        let input = &mut self.input.as_mut_slice()[..rows.len()];
        simd.vectorize(
            #[inline(always)]
            || E::round_into(rows, input),
        );
    }

    /// `expanded = gelu(input * transpose(weights) + bias)`.
    fn expand<S: Simd, P: Product<Element = E>>(
        &mut self,
        simd: S,
        linear: &Linear<P>,
    ) -> Result<(), LocalError> {
        let Block { rows, input, expanded, tile } = self;
        let expanded = expanded.as_mut_slice();
        linear.product.multiply(simd, input, tile, |column, tile| {
            let bias = &linear.bias[column..][..TILE_COLUMNS];
            simd.vectorize(
                #[inline(always)]
                || {
                    let mut activated = [0.0; TILE_COLUMNS];
                    let targets = expanded.chunks_exact_mut(INTERMEDIATE).take(*rows);
                    for (values, target) in tile.chunks_exact(TILE_COLUMNS).zip(targets) {
                        gelu_with_bias(simd, values, bias, &mut activated);
                        E::round_into(&activated, &mut target[column..][..TILE_COLUMNS]);
                    }
                },
            );
        })
    }
}

fn load_layer<S: Simd, P: Product>(
    simd: S,
    tensors: &Tensors<'_>,
    number: usize,
) -> Result<Layer<P>, LocalError> {
    let name = |part: &str| format!("encoder.layer.{number}.{part}");
    let linear = |part: &str, outputs: usize, inputs: usize| {
        load_linear(simd, tensors, &name(part), [outputs, inputs])
    };
    Ok(Layer {
        attention_input: load_attention_input(simd, tensors, &name("attention.self"))?,
        attention_output: linear("attention.output.dense", HIDDEN, HIDDEN)?,
        attention_norm: load_norm(tensors, &name("attention.output.LayerNorm"))?,
        expand: linear("intermediate.dense", INTERMEDIATE, HIDDEN)?,
        contract: linear("output.dense", HIDDEN, INTERMEDIATE)?,
        output_norm: load_norm(tensors, &name("output.LayerNorm"))?,
    })
}

fn load_linear<S: Simd, P: Product>(
    simd: S,
    tensors: &Tensors<'_>,
    name: &str,
    shape: [usize; 2],
) -> Result<Linear<P>, LocalError> {
    let weights = tensors.values(&format!("{name}.weight"), &shape)?;
    let bias = tensors.values(&format!("{name}.bias"), &shape[..1])?;
    Ok(Linear { product: P::pack(simd, &weights, shape[1])?, bias })
}

/// Queries, keys and values as one layer, with the factors of the scores folded into the queries.
fn load_attention_input<S: Simd, P: Product>(
    simd: S,
    tensors: &Tensors<'_>,
    name: &str,
) -> Result<Linear<P>, LocalError> {
    let score_factor = std::f32::consts::LOG2_E / (HEAD_SIZE as f32).sqrt();
    let mut weights = Vec::with_capacity(3 * HIDDEN * HIDDEN);
    let mut bias = Vec::with_capacity(3 * HIDDEN);
    for (part, factor) in [("query", score_factor), ("key", 1.0), ("value", 1.0)] {
        let part_weights = tensors.values(&format!("{name}.{part}.weight"), &[HIDDEN, HIDDEN])?;
        let part_bias = tensors.values(&format!("{name}.{part}.bias"), &[HIDDEN])?;
        weights.extend(part_weights.iter().map(|weight| weight * factor));
        bias.extend(part_bias.iter().map(|value| value * factor));
    }
    Ok(Linear { product: P::pack(simd, &weights, HIDDEN)?, bias })
}

fn load_norm(tensors: &Tensors<'_>, name: &str) -> Result<LayerNorm, LocalError> {
    Ok(LayerNorm {
        weight: tensors.values(&format!("{name}.weight"), &[HIDDEN])?,
        bias: tensors.values(&format!("{name}.bias"), &[HIDDEN])?,
    })
}
