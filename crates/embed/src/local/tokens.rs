//! Texts to word pieces, by the model's own `tokenizer.json`.

use tokenizers::{Encoding, Tokenizer};

use super::LocalError;
use super::encoder::{TOKENS_MAX, VOCABULARY};

/// The token that ends every sequence.
const SEPARATOR: &str = "[SEP]";

/// Bytes of a text that are looked at first: more than [`TOKENS_MAX`] tokens of any prose.
const HEAD_BYTES: usize = 4_096;

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
    /// longer text is left out. Of a long text, no more is read than that takes: a query must not
    /// wait for the words of a book that are then thrown away.
    pub(super) fn sequence(&self, text: &str) -> Result<Sequence, LocalError> {
        let mut size = HEAD_BYTES;
        let encoding = loop {
            let head = head(text, size);
            let encoding = self.encode(head)?;
            if head.len() == text.len() || encoding.len() > TOKENS_MAX {
                break encoding;
            }
            size = size.saturating_mul(4);
        };
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
        Ok(self.encode(text)?.len())
    }

    fn encode(&self, text: &str) -> Result<Encoding, LocalError> {
        self.tokenizer
            .encode_fast(text, true)
            .map_err(|error| LocalError::Tokenizer { reason: error.to_string() })
    }
}

/// The beginning of `text`, of about `size` bytes, whose tokens are the first ones of the text's:
/// cut where the tokenizer cuts whatever stands around.
fn head(text: &str, size: usize) -> &str {
    let middle = text.floor_char_boundary(size);
    let (before, after) = text.split_at(middle);
    let border = before
        .rfind(is_border)
        .filter(|&at| at > 0)
        .or_else(|| after.find(is_border).map(|at| middle + at))
        .filter(|_| !after.is_empty());
    border.map_or(text, |at| text.split_at(at).0)
}

/// Whether words end before `c`: white space as the tokenizer knows it, and ideographs, which it
/// takes one by one.
fn is_border(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{4e00}'..='\u{9fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_a_border_and_is_no_longer_than_it_must() {
        let check = |text: &str, size, expected: &str| assert_eq!(head(text, size), expected);
        check("one two three", 100, "one two three");
        check("one two three", 9, "one two");
        check("one two three", 13, "one two three");
        // A word that is longer than asked for is not cut.
        check("internationalisation of", 5, "internationalisation");
        check("internationalisation", 5, "internationalisation");
        check("  x y", 1, " ");
        check("\u{e9}\u{e9} x", 1, "\u{e9}\u{e9}");
        check("\u{4e00}\u{4e01}\u{4e02}\u{4e03}", 7, "\u{4e00}");
        // White space that the tokenizer ignores is no border.
        check("a\u{c}b c", 2, "a\u{c}b");
    }
}
