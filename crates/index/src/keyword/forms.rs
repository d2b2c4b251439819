//! The words, as they are written, that have one term.
//!
//! A term is the stem of several words, and its list has the rows of all of them. So that a row is
//! found by how a word of it begins, and not by how its stem does, it is kept which of the words each
//! occurrence is of. The words of a term have ranks, the most frequent one 0.
//!
//! ```text
//! aside of a term that has other words than itself: nothing, if it has but one word, else varint words
//!         | varint of the rank, from 1, of the word that is written as the term, 0 if none is
//!         | the rank of each occurrence, in bits
//! rank:   a one for each rank below it, at most 8, and a zero; without that where no rank is left
//!         that it could be; behind 8 ones, where there are several left, what is above 8
//! written words: u64 bytes of places | u64 bytes of blocks | places | blocks | terms
//! ```
//!
//! Written words but for those that are as their term are in a dictionary of their own, with their
//! ranks as numbers, and their terms as lists: varint of how many bytes of the word are not of the
//! term, and the bytes that the term has in their place. Bits begin with the lowest of a byte. Nothing
//! here panics on bytes that are something else.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::inverted::{Bytes, Dictionary, DictionaryWriter, varint, within};

/// Ones of a rank.
const ONES_MAX: u32 = 8;
/// Bytes in front of the written words: two numbers of 64 bits.
const HEADER_BYTES: usize = 16;

/// Which words a term's occurrences are of, as they come.
#[derive(Debug, Default)]
pub(super) struct GrowingForms {
    /// The words that are not as the term, with their numbers, from 1; the one that is has 0.
    others: BTreeMap<Box<str>, u32>,
    /// Occurrences before the first of another word.
    before: u32,
    /// The numbers of all behind them, as varints.
    numbers: Vec<u8>,
}

/// A written word of a term.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Form {
    pub(super) word: Box<str>,
    pub(super) term: Box<str>,
    rank: u32,
}

impl GrowingForms {
    /// Adds an occurrence of a term, as which word it is written. O(log words).
    pub(super) fn push(&mut self, term: &str, word: &str) {
        if word == term {
            if self.others.is_empty() {
                self.before = self.before.saturating_add(1);
            } else {
                self.numbers.push(0);
            }
            return;
        }
        let number = self.others.get(word).copied().unwrap_or_else(|| {
            // As many as a segment has bytes of text at most, which are fewer.
            let number = u32::try_from(self.others.len() + 1).unwrap_or(u32::MAX);
            self.others.insert(word.into(), number);
            number
        });
        varint(u64::from(number), &mut self.numbers);
    }

    /// What is kept aside of the term, if anything is, and its other words, which are added to
    /// `written`. O(occurrences).
    pub(super) fn finish(self, term: &str, written: &mut Vec<Form>) -> Option<Vec<u8>> {
        if self.others.is_empty() {
            return None;
        }
        let ranks = self.ranks();
        let words = u32::try_from(ranks.iter().flatten().count()).unwrap_or(u32::MAX);
        let rank_of = |number: u32| ranks.get(number as usize).copied().flatten();
        let mut aside = Vec::new();
        if words > 1 {
            varint(u64::from(words), &mut aside);
            varint(rank_of(0).map_or(0, |rank| u64::from(rank) + 1), &mut aside);
            let mut bits = BitWriter::default();
            for number in self.each_number() {
                bits.push_rank(rank_of(number).unwrap_or(0), words);
            }
            aside.extend(bits.finish());
        }
        let rank_of_word = |(word, number): (Box<str>, u32)| {
            Some(Form { word, term: term.into(), rank: rank_of(number)? })
        };
        written.extend(self.others.into_iter().filter_map(rank_of_word));
        Some(aside)
    }

    /// The number of each occurrence.
    fn each_number(&self) -> impl Iterator<Item = u32> {
        let mut bytes = Bytes { bytes: &self.numbers, at: 0 };
        let behind =
            std::iter::from_fn(move || (bytes.at < bytes.bytes.len()).then(|| bytes.small()));
        std::iter::repeat_n(0, self.before as usize).chain(behind)
    }

    /// The rank of each number; `None` of the term itself where no word is written so.
    fn ranks(&self) -> Vec<Option<u32>> {
        let mut counts = vec![(0_u32, 0_u32); self.others.len() + 1];
        for number in self.each_number() {
            if let Some((count, _number)) = counts.get_mut(number as usize) {
                *count = count.saturating_add(1);
            }
        }
        // Of equally frequent ones, those that came first come first.
        (0..).zip(&mut counts).for_each(|(number, (_count, own))| *own = number);
        counts.retain(|(count, _number)| *count > 0);
        counts.sort_unstable_by_key(|(count, number)| (Reverse(*count), *number));
        let mut ranks = vec![None; self.others.len() + 1];
        for (rank, (_count, number)) in (0..).zip(counts) {
            ranks[number as usize] = Some(rank);
        }
        ranks
    }
}

/// What is kept aside of a term.
#[derive(Debug, Clone, Copy)]
pub(super) struct Forms<'a> {
    /// How many words have the term; 0 for one.
    pub(super) words: u32,
    /// The rank of the one that is written as the term.
    pub(super) own: Option<u32>,
    bits: &'a [u8],
}

impl<'a> Forms<'a> {
    pub(super) fn read(aside: &'a [u8]) -> Self {
        let mut bytes = Bytes { bytes: aside, at: 0 };
        let (words, own) = (bytes.small(), bytes.small());
        let bits = aside.get(bytes.at..).unwrap_or(&[]);
        Self { words, own: own.checked_sub(1), bits }
    }

    /// The rank of each occurrence's word.
    pub(super) fn ranks(&self) -> Ranks<'a> {
        Ranks { words: self.words, bits: self.bits, at: 0 }
    }
}

/// The ranks of a term's occurrences, in order.
pub(super) struct Ranks<'a> {
    words: u32,
    bits: &'a [u8],
    at: usize,
}

impl Ranks<'_> {
    fn bit(&mut self) -> Option<bool> {
        let byte = self.bits.get(self.at / 8)?;
        let bit = byte >> (self.at % 8) & 1 == 1;
        self.at += 1;
        Some(bit)
    }
}

impl Iterator for Ranks<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ones_max, above_bits) = code_of(self.words);
        let mut rank = 0;
        while rank < ones_max && self.bit()? {
            rank += 1;
        }
        if rank < ones_max {
            return Some(rank);
        }
        let mut above = 0;
        for at in 0..above_bits {
            above |= u32::from(self.bit()?) << at;
        }
        Some(rank.saturating_add(above))
    }
}

/// The most ones of a rank among so many words, and the bits of what is above them.
fn code_of(words: u32) -> (u32, u32) {
    let greatest = words.saturating_sub(1);
    let ones_max = greatest.min(ONES_MAX);
    (ones_max, u32::BITS - (greatest - ones_max).leading_zeros())
}

#[derive(Debug, Default)]
struct BitWriter {
    bytes: Vec<u8>,
    pending: u8,
    filled: u32,
}

impl BitWriter {
    fn push(&mut self, bit: bool) {
        self.pending |= u8::from(bit) << self.filled;
        self.filled += 1;
        if self.filled == u8::BITS {
            self.bytes.push(self.pending);
            (self.pending, self.filled) = (0, 0);
        }
    }

    fn push_rank(&mut self, rank: u32, words: u32) {
        let (ones_max, above_bits) = code_of(words);
        (0..rank.min(ones_max)).for_each(|_one| self.push(true));
        if rank < ones_max {
            self.push(false);
            return;
        }
        (0..above_bits).for_each(|at| self.push((rank - ones_max) >> at & 1 == 1));
    }

    fn finish(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.bytes.push(self.pending);
        }
        self.bytes
    }
}

/// The written words as bytes. O(words log words).
pub(super) fn write(mut words: Vec<Form>) -> Vec<u8> {
    words.sort_unstable();
    let mut dictionary = DictionaryWriter::default();
    let mut terms = Vec::new();
    for Form { word, term, rank } in &words {
        let shared = word.bytes().zip(term.bytes()).take_while(|(a, b)| a == b).count();
        let start = terms.len();
        varint((word.len() - shared) as u64, &mut terms);
        terms.extend(&term.as_bytes()[shared..]);
        dictionary.push(word.as_bytes(), (*rank, false), (terms.len() - start, 0));
    }
    let lens = [dictionary.places.len() as u64, dictionary.blocks.len() as u64];
    let mut bytes: Vec<u8> = lens.into_iter().flat_map(u64::to_le_bytes).collect();
    for part in [dictionary.places, dictionary.blocks, terms] {
        bytes.extend(part);
    }
    bytes
}

/// Gives of all words that begin so and are not written as their terms the terms and the ranks.
/// O(log words + those).
pub(super) fn each_of_prefix(written: &[u8], prefix: &[u8], mut each: impl FnMut(&[u8], u32)) {
    let Some((lens, parts)) = written.split_at_checked(HEADER_BYTES) else { return };
    let (lens, _none) = lens.as_chunks::<8>();
    let [places, blocks] = lens else { return };
    let [places, blocks] = [places, blocks].map(|len| u64::from_le_bytes(*len));
    let behind = places.saturating_add(blocks);
    let rest = (parts.len() as u64).saturating_sub(behind);
    let terms = within(parts, (behind, rest));
    let dictionary =
        Dictionary { places: within(parts, (0, places)), blocks: within(parts, (places, blocks)) };
    let mut term = Vec::new();
    dictionary.find_prefix(prefix, |word, place| {
        let mut of_term = Bytes { bytes: within(terms, place.list), at: 0 };
        let shared = word.len().saturating_sub(of_term.small() as usize);
        term.clear();
        term.extend(&word[..shared]);
        term.extend(of_term.bytes.get(of_term.at..).unwrap_or(&[]));
        each(&term, place.number);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_read_as_they_were_written_however_many_words_there_are() {
        for words in (1..40).chain([300, 70_000]) {
            let ranks: Vec<u32> = (0..words)
                .chain((0..words).rev())
                .filter(|rank| *rank < 40 || rank % 97 == 0)
                .collect();
            let mut bits = BitWriter::default();
            for rank in &ranks {
                bits.push_rank(*rank, words);
            }
            let bits = bits.finish();
            let read: Vec<u32> = Ranks { words, bits: &bits, at: 0 }.take(ranks.len()).collect();
            assert_eq!(read, ranks, "{words} words");
        }
    }

    #[test]
    fn the_most_frequent_word_takes_the_fewest_bits() {
        let mut forms = GrowingForms::default();
        for word in ["runs", "run", "running", "run", "run", "running"] {
            forms.push("run", word);
        }
        let mut written = Vec::new();
        let aside = forms.finish("run", &mut written).unwrap();
        let forms = Forms::read(&aside);
        assert_eq!((forms.words, forms.own), (3, Some(0)));
        assert_eq!(forms.ranks().take(6).collect::<Vec<_>>(), [2, 0, 1, 0, 0, 1]);
        // Nine bits, behind two numbers.
        assert_eq!(aside.len(), 4);
        let ranks: Vec<(&str, u32)> = written.iter().map(|form| (&*form.word, form.rank)).collect();
        assert_eq!(ranks, [("running", 1), ("runs", 2)]);
    }
}
