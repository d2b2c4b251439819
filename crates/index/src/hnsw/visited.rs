//! Which nodes a walk has met.

/// A set of nodes that is emptied in the time it took to fill.
#[derive(Debug, Default)]
pub(super) struct Visited {
    words: Vec<u64>,
    /// Words that are not zero.
    touched: Vec<u32>,
}

impl Visited {
    /// Makes room for nodes below `nodes`, and empties the set.
    pub(super) fn reset(&mut self, nodes: usize) {
        for word in self.touched.drain(..) {
            self.words[word as usize] = 0;
        }
        let words = nodes.div_ceil(64);
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
    }

    /// Adds a node; whether it was new.
    #[inline]
    pub(super) fn insert(&mut self, node: u32) -> bool {
        let word = &mut self.words[node as usize / 64];
        let bit = 1 << (node % 64);
        if *word == 0 {
            self.touched.push(node / 64);
        }
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}
