//! Texts to word pieces, by the model's own `tokenizer.json`.

use tokenizers::Tokenizer;

use super::LocalError;
use super::encoder::{TOKENS_MAX, VOCABULARY};

/// The token that ends every sequence.
const SEPARATOR: &str = "[SEP]";

/// The model's tokenizer, without the padding and truncation its file asks for.
pub(super) struct WordPieces {
    tokenizer: Tokenizer,
    separator: u32,
}

/// The ids of one text, 2 to [`TOKENS_MAX`] of them.
pub(super) struct Sequence {
    pub(super) ids: Vec<u32>,
    /// Whether the text had more tokens than the model takes.
    pub(super) truncated: bool,
}

impl WordPieces {
    /// Parses the bytes of a `tokenizer.json`.
    pub(super) fn parse(bytes: &[u8]) -> Result<WordPieces, LocalError> {
        let failed = |error: tokenizers::Error| LocalError::Tokenizer { reason: error.to_string() };
        let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(failed)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(failed)?;
        let reason = || format!("it has no {SEPARATOR} token");
        let separator = tokenizer
            .token_to_id(SEPARATOR)
            .ok_or_else(|| LocalError::Tokenizer { reason: reason() })?;
        let size = tokenizer.get_vocab_size(true);
        if size > VOCABULARY {
            let reason = format!("it knows {size} tokens and the model {VOCABULARY}");
            return Err(LocalError::Tokenizer { reason });
        }
        Ok(WordPieces { tokenizer, separator })
    }

    /// The ids of `text` between the special tokens, cut to what the model takes: the end of a
    /// longer text is left out.
    pub(super) fn sequence(&self, text: &str) -> Result<Sequence, LocalError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| LocalError::Tokenizer { reason: error.to_string() })?;
        let mut ids = encoding.get_ids().to_vec();
        let truncated = ids.len() > TOKENS_MAX;
        if truncated {
            ids.truncate(TOKENS_MAX - 1);
            ids.push(self.separator);
        }
        Ok(Sequence { ids, truncated })
    }

    /// Tokens of `text`, special tokens included, before any cut.
    pub(super) fn count(&self, text: &str) -> Result<usize, LocalError> {
        let encoding = self
            .tokenizer
            .encode_fast(text, true)
            .map_err(|error| LocalError::Tokenizer { reason: error.to_string() })?;
        Ok(encoding.len())
    }
}
