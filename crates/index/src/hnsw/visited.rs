//! Which nodes a walk has met.

/// A set of nodes that is emptied in the time it took to fill.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    /// The first `touched_len` are the words that are not zero; one more than there are words, as one
    /// is written before it is known whether it counts.
    touched: Vec<u32>,
    touched_len: usize,
}

impl Visited {
    /// Makes room for nodes below `nodes`, and empties the set.
    pub(super) fn reset(&mut self, nodes: usize) {
        for word in &self.touched[..self.touched_len] {
            self.words[*word as usize] = 0;
        }
        self.touched_len = 0;
        let words = nodes.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
            self.touched.resize(words + 1, 0);
        }
    }

    /// Adds a node; whether it was new. Without a branch: half of what a walk meets is new, which no
    /// processor can foresee.
    #[inline]
    pub(super) fn insert(&mut self, node: u32) -> bool {
        let word = &mut self.words[node as usize / 64];
        let bit = 1 << (node % 64);
        let before = *word;
        *word = before | bit;
        self.touched[self.touched_len] = node / 64;
        self.touched_len += usize::from(before == 0);
        before & bit == 0
    }
}
