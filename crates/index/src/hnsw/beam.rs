//! The nearest nodes that a walk has found, and which of them it has still to follow.

/// A node and its distance.
#[derive(Copy, Clone, Debug, PartialEq)]
pub(super) struct Near {
    pub(super) distance: f32,
    node: u32,
}

impl Near {
    pub(super) fn new(distance: f32, node: u32) -> Self {
        Self { distance, node }
    }

    pub(super) fn node(self) -> u32 {
        self.node
    }
}

/// Distance, node and whether its links were followed, from the highest bit to the lowest: as whole
/// numbers these are in order of (distance, node), and to compare them takes no branch.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

/// Set in an entry whose links were followed.
const FOLLOWED: u64 = 1;

impl Entry {
    /// No segment has 2^31 rows.
    #[inline]
    fn new(distance: f32, node: u32) -> Self {
        let bits = distance.to_bits();
        // Of negative numbers the greater bits are the lesser number.
        let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
        Self(u64::from(ordered) << 32 | u64::from(node) << 1)
    }

    #[inline]
    fn distance(self) -> f32 {
        let ordered = (self.0 >> 32) as u32;
        f32::from_bits(if ordered >> 31 == 1 { ordered & !(1 << 31) } else { !ordered })
    }

    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn node(self) -> u32 {
        self.0 as u32 >> 1
    }

    #[inline]
    fn is_followed(self) -> bool {
        self.0 & FOLLOWED != 0
    }
}

/// The `width` nearest nodes, nearest first. A sorted array: up to some hundred entries it is
/// quicker than heaps, and what it holds does not depend on the order of offers.
#[derive(Debug)]
pub(super) struct Beam {
    entries: Vec<Entry>,
    width: usize,
    /// No entry before this one is still to be followed.
    cursor: usize,
    bound: f32,
}

impl Default for Beam {
    fn default() -> Self {
        Self { entries: Vec::new(), width: 0, cursor: 0, bound: f32::NEG_INFINITY }
    }
}

impl Beam {
    pub(super) fn reset(&mut self, width: usize) {
        self.entries.clear();
        self.entries.reserve(width);
        self.width = width;
        self.cursor = 0;
        self.bound = if width == 0 { f32::NEG_INFINITY } else { f32::INFINITY };
    }

    /// A distance above this is not kept.
    #[inline]
    pub(super) fn bound(&self) -> f32 {
        self.bound
    }

    /// A node that was not offered before, at a distance that is a number.
    #[inline]
    pub(super) fn offer(&mut self, distance: f32, node: u32) {
        let entry = Entry::new(distance, node);
        if self.entries.len() == self.width {
            if self.entries.last().is_none_or(|last| entry > *last) {
                return;
            }
            self.entries.pop();
        }
        let place = self.entries.partition_point(|other| *other < entry);
        self.entries.insert(place, entry);
        self.cursor = self.cursor.min(place);
        if self.entries.len() == self.width {
            self.bound = self.entries.last().map_or(f32::NEG_INFINITY, |last| last.distance());
        }
    }

    /// The nearest node that was not followed yet, which is followed now.
    #[inline]
    pub(super) fn follow(&mut self) -> Option<u32> {
        while let Some(entry) = self.entries.get_mut(self.cursor) {
            self.cursor += 1;
            if !entry.is_followed() {
                entry.0 |= FOLLOWED;
                return Some(entry.node());
            }
        }
        None
    }

    /// The node that [`Self::follow`] would give.
    #[inline]
    pub(super) fn next(&self) -> Option<u32> {
        let rest = self.entries.get(self.cursor..)?;
        rest.iter().find(|entry| !entry.is_followed()).map(|entry| entry.node())
    }

    /// What is kept, nearest first.
    pub(super) fn nearest(&self) -> impl ExactSizeIterator<Item = Near> {
        self.entries.iter().map(|entry| Near::new(entry.distance(), entry.node()))
    }
}

#[cfg(test)]
mod tests {
    use super::Beam;
    use proptest::prelude::*;

    proptest! {
        /// Against sorting all offers; distances of either sign, equal ones among them.
        #[test]
        fn the_nearest_are_kept_in_order_and_followed_once(
            distances in prop::collection::vec(-20_i16..20, 1..80),
            width in 1_usize..20,
        ) {
            let mut beam = Beam::default();
            beam.reset(width);
            let mut offered: Vec<(f32, u32)> = Vec::new();
            let mut followed = Vec::new();
            for (node, distance) in (0_u32..).zip(distances) {
                let distance = f32::from(distance) / 3.0;
                offered.push((distance, node));
                beam.offer(distance, node);
                offered.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                offered.truncate(width);
                let kept: Vec<(f32, u32)> =
                    beam.nearest().map(|near| (near.distance, near.node())).collect();
                prop_assert_eq!(&kept, &offered);
                let full = offered.len() == width;
                let bound = if full { offered[width - 1].0 } else { f32::INFINITY };
                prop_assert_eq!(beam.bound().to_bits(), bound.to_bits());
                if node % 3 == 0 {
                    let next = beam.next();
                    prop_assert_eq!(next, beam.follow());
                    followed.extend(next);
                }
            }
            while let Some(node) = beam.follow() {
                followed.push(node);
            }
            for (_, node) in &offered {
                prop_assert_eq!(followed.iter().filter(|other| *other == node).count(), 1);
            }
        }
    }
}
