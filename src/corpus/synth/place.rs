//! Which image has which layers.
//!
//! Images are slots to be filled; a layer with `m` rows fills one slot of each of `m` images. As
//! a rule these are consecutive images of one repository: tags follow each other, and a tag keeps
//! most of the layers of the one before. Often repeated layers come in groups, like the layers of
//! a base image, and stand in several repositories. The most repeated layers are placed first,
//! those that stand in one image only fill what is left, so that all counts are met exactly.

use super::draw::{Draw, Stream};
use super::shape::Repetition;
use std::ops::Range;

/// The layers of all images.
pub(super) struct Placement {
    /// CSR offsets into `slots`, one more than images.
    pub offsets: Vec<usize>,
    /// Numbers of layers.
    pub slots: Vec<u32>,
    /// True where an image is the same as the one before, under another tag.
    pub same_as_before: Vec<bool>,
}

impl Placement {
    pub fn layers_of(&self, image: usize) -> &[u32] {
        &self.slots[self.offsets[image]..self.offsets[image + 1]]
    }
}

/// Layers with more rows than this come in groups and in several repositories.
const GROUPED: u64 = 100;
/// How often a repository is drawn anew before a layer is put wherever there is room.
const ATTEMPTS: usize = 24;
/// Marks a slot that is not filled.
const FREE: u32 = u32::MAX;

/// Fills all slots. `ranges` are the images of each repository, `heights` the number of layers of
/// each image.
pub(super) fn place(
    seed: u64,
    ranges: &[Range<usize>],
    heights: &[u64],
    repetition: &Repetition,
) -> Placement {
    let mut filler = Filler::new(seed, ranges, heights);
    let (empty, others) = repetition.rows.split_at(repetition.empty);
    filler.place_empty(empty);
    filler.open();
    let mut layer = empty.len() as u32;
    let first_pair = layer as usize + others.partition_point(|m| *m > 2);
    let first_single = layer as usize + others.partition_point(|m| *m > 1);
    let grouped = layer as usize + others.partition_point(|m| *m > GROUPED);
    while (layer as usize) < grouped {
        let size = (1 + filler.draw.below(5) as usize).min(grouped - layer as usize);
        filler.place_group(layer, &repetition.rows[layer as usize..layer as usize + size]);
        layer += size as u32;
    }
    while (layer as usize) < first_pair {
        filler.place_run(layer, repetition.rows[layer as usize]);
        layer += 1;
    }
    layer += filler.fill_twins(layer, (first_single - first_pair) as u32);
    while (layer as usize) < first_single {
        filler.place_run(layer, 2);
        layer += 1;
    }
    filler.fill_rest(layer);
    filler.finish(repetition)
}

struct Filler<'a> {
    draw: Draw,
    ranges: &'a [Range<usize>],
    repository: Vec<u32>,
    offsets: Vec<usize>,
    slots: Vec<u32>,
    filled: Vec<u32>,
    /// True where the next image is filled together with this one, as it is the same.
    twin: Vec<bool>,
    /// The layer last put into each image.
    last: Vec<u32>,
    /// For each repository the images with room, in order; a twin stands for its pair.
    open: Vec<Vec<u32>>,
    room: Area,
}

impl<'a> Filler<'a> {
    fn new(seed: u64, ranges: &'a [Range<usize>], heights: &[u64]) -> Self {
        let images = heights.len();
        let mut draw = Draw::new(seed, Stream::Placement, 0);
        let mut offsets = Vec::with_capacity(images + 1);
        offsets.push(0);
        for height in heights {
            offsets.push(offsets[offsets.len() - 1] + *height as usize);
        }
        let mut twin = vec![false; images];
        let mut repository = vec![0; images];
        for (r, range) in ranges.iter().enumerate() {
            repository[range.clone()].fill(r as u32);
            for i in range.start + 1..range.end {
                let fits = heights[i] == heights[i - 1] && !(i >= 2 && twin[i - 2]);
                twin[i - 1] = fits && draw.chance(0.12);
            }
        }
        Self {
            draw,
            ranges,
            repository,
            slots: vec![FREE; offsets[images]],
            offsets,
            filled: vec![0; images],
            twin,
            last: vec![FREE; images],
            open: vec![Vec::new(); ranges.len()],
            room: Area::new(ranges.len()),
        }
    }

    fn room_in(&self, image: usize) -> usize {
        self.offsets[image + 1] - self.offsets[image] - self.filled[image] as usize
    }

    /// How many rows a layer has in this image and its twin.
    fn weight(&self, image: usize) -> u64 {
        1 + u64::from(self.twin[image])
    }

    fn is_second_twin(&self, image: usize) -> bool {
        image > 0 && self.twin[image - 1]
    }

    /// Puts a layer into an image, and its twin.
    fn put(&mut self, image: usize, layer: u32) {
        for i in image..=image + usize::from(self.twin[image]) {
            let slot = self.offsets[i] + self.filled[i] as usize;
            debug_assert_eq!(self.slots[slot], FREE);
            self.slots[slot] = layer;
            self.filled[i] += 1;
            self.last[i] = layer;
        }
    }

    /// The empty layers: newer images of some repositories have the first kind, one for each
    /// WORKDIR and the like; older images of others have the second. An image may repeat them.
    fn place_empty(&mut self, rows: &[u64]) {
        let mut order: Vec<usize> = (0..self.ranges.len()).collect();
        self.draw.shuffle(&mut order);
        for (layer, total) in rows.iter().enumerate() {
            let mut left = *total;
            // All images take part in a second round, should the first not suffice.
            for round in 0..2 {
                for &r in &order {
                    let range = self.ranges[r].clone();
                    let half = range.start + self.draw.below(range.len() as u64 / 2 + 1) as usize;
                    let (images, most) = match (round, layer) {
                        (0, 0) => (half..range.end, [1, 1, 1, 2, 2, 3][self.draw.below(6) as usize]),
                        (0, _) => (range.start..half, 1 + self.draw.below(4)),
                        _ => (range, u64::MAX),
                    };
                    for i in images.filter(|i| !self.is_second_twin(*i)).collect::<Vec<_>>() {
                        let spare = (self.room_in(i) as u64).saturating_sub(1 - round);
                        let times = most.min(spare).min(left / self.weight(i));
                        (0..times).for_each(|_| self.put(i, layer as u32));
                        left -= times * self.weight(i);
                    }
                    if left == 0 {
                        break;
                    }
                }
            }
            order.reverse();
            if left > 0 {
                self.put_anywhere(layer as u32, left);
            }
        }
    }

    /// Makes the lists of images with room.
    fn open(&mut self) {
        for (r, range) in self.ranges.iter().enumerate() {
            let open = range.clone().filter(|i| !self.is_second_twin(*i) && self.room_in(*i) > 0);
            self.open[r] = open.map(|i| i as u32).collect();
            let room: usize = range.clone().map(|i| self.room_in(i)).sum();
            self.room.add(r, room as i64);
        }
    }

    /// Puts a layer into `wanted` consecutive images of a repository, or as many as have room,
    /// from image `from` on; at random if it is `None`. Returns the rows placed.
    fn run(&mut self, repository: usize, layer: u32, wanted: u64, from: Option<u32>) -> u64 {
        let mut open = std::mem::take(&mut self.open[repository]);
        let last_start = open.len().saturating_sub(wanted as usize);
        let start = match from {
            Some(image) => open.partition_point(|i| *i < image).min(last_start),
            None => window(open.len(), wanted, &mut self.draw),
        };
        let (mut placed, mut closed) = (0, false);
        for k in (start..open.len()).chain((0..start).rev()) {
            if placed == wanted {
                break;
            }
            let image = open[k] as usize;
            let weight = self.weight(image);
            if self.last[image] != layer && placed + weight <= wanted {
                self.put(image, layer);
                placed += weight;
                closed |= self.room_in(image) == 0;
            }
        }
        if closed {
            open.retain(|i| self.room_in(*i as usize) > 0);
        }
        self.open[repository] = open;
        self.room.add(repository, -(placed as i64));
        placed
    }

    /// Of a few repositories, the one with the most images that have room.
    fn roomy_repository(&mut self, wanted: u64) -> Option<usize> {
        let mut best = self.room.draw(&mut self.draw)?;
        for _ in 0..8 {
            if self.open[best].len() as u64 >= wanted {
                break;
            }
            let other = self.room.draw(&mut self.draw)?;
            if self.open[other].len() > self.open[best].len() {
                best = other;
            }
        }
        Some(best)
    }

    fn place_run(&mut self, layer: u32, rows: u64) {
        // One in eight stands in two or three repositories.
        let parts = if rows > 1 && self.draw.chance(0.125) { 2 + self.draw.below(2) } else { 1 };
        let mut left = rows;
        for _ in 0..ATTEMPTS {
            let wanted = left.min(rows.div_ceil(parts));
            let Some(repository) = self.roomy_repository(wanted) else { break };
            left -= self.run(repository, layer, wanted, None);
            if left == 0 {
                return;
            }
        }
        self.put_anywhere(layer, left);
    }

    /// Layers that belong together, as those of a base image do: all in the same images.
    fn place_group(&mut self, first: u32, rows: &[u64]) {
        // Some repositories of any size use it in their newest images, others did for a while.
        let mut sites = Vec::new();
        for _ in 0..self.draw.below(10) {
            let repository = self.draw.below(self.ranges.len() as u64) as usize;
            sites.push((repository, u32::MAX, 1 + self.draw.below(12)));
        }
        let for_a_while = (rows[0] / (20 + self.draw.below(100))).max(1);
        let share = rows[0].div_ceil(for_a_while);
        for _ in 0..for_a_while {
            let Some(repository) = self.roomy_repository(share) else { break };
            let open = &self.open[repository];
            let start = window(open.len(), share, &mut self.draw);
            let image = open.get(start).copied().unwrap_or(0);
            sites.push((repository, image, share));
        }
        for (layer, rows) in (first..).zip(rows) {
            let mut left = *rows;
            for (repository, image, share) in &sites {
                left -= self.run(*repository, layer, left.min(*share), Some(*image));
            }
            if left > 0 {
                self.place_run(layer, left);
            }
        }
    }

    /// Puts a layer into the images with the most room. If all that have room have it already,
    /// they get it again.
    fn put_anywhere(&mut self, layer: u32, mut left: u64) {
        for repeat in [false, true] {
            while left > 0 {
                let mut images: Vec<usize> = (0..self.filled.len())
                    .filter(|i| self.room_in(*i) > 0 && !self.is_second_twin(*i))
                    .filter(|i| repeat || !self.holds(*i, layer))
                    .collect();
                images.sort_by_key(|i| std::cmp::Reverse(self.room_in(*i)));
                if images.is_empty() {
                    break;
                }
                for image in images {
                    if left == 1 && self.twin[image] {
                        self.part(image);
                    }
                    if left > 0 {
                        left -= self.weight(image);
                        self.put(image, layer);
                        self.update(image);
                    }
                }
            }
        }
        assert_eq!(left, 0, "there are as many slots as rows");
    }

    fn holds(&self, image: usize, layer: u32) -> bool {
        let start = self.offsets[image];
        self.slots[start..start + self.filled[image] as usize].contains(&layer)
    }

    /// Makes two images of a pair of twins.
    fn part(&mut self, image: usize) {
        self.twin[image] = false;
        let open = &mut self.open[self.repository[image] as usize];
        if let Ok(k) = open.binary_search(&(image as u32)) {
            open.insert(k + 1, image as u32 + 1);
        }
    }

    /// Brings the lists up to date after `image` (and its twin) got one layer more.
    fn update(&mut self, image: usize) {
        let r = self.repository[image] as usize;
        if let Ok(k) = self.open[r].binary_search(&(image as u32)) {
            self.room.add(r, -(self.weight(image) as i64));
            if self.room_in(image) == 0 {
                self.open[r].remove(k);
            }
        }
    }

    /// Fills the rest of twins with layers that have two rows, as long as there are any. Returns
    /// how many it used.
    fn fill_twins(&mut self, first: u32, pairs: u32) -> u32 {
        let mut used = 0;
        for image in 0..self.filled.len() {
            while self.twin[image] && self.room_in(image) > 0 && used < pairs {
                self.put(image, first + used);
                self.update(image);
                used += 1;
            }
        }
        used
    }

    /// Fills all that is free with layers that stand in one image only.
    fn fill_rest(&mut self, mut layer: u32) {
        for image in 0..self.filled.len() {
            if self.room_in(image) > 0 {
                self.twin[image] = false;
            }
            while self.room_in(image) > 0 {
                self.put(image, layer);
                layer += 1;
            }
        }
    }

    fn finish(self, repetition: &Repetition) -> Placement {
        let mut found = vec![0u64; repetition.rows.len()];
        for layer in &self.slots {
            found[*layer as usize] += 1;
        }
        assert_eq!(found, repetition.rows, "every layer has its rows");
        let same_as_before = (0..self.filled.len()).map(|i| self.is_second_twin(i)).collect();
        Placement { offsets: self.offsets, slots: self.slots, same_as_before }
    }
}

/// Where a window of `width` begins among `n`. The first and the last are as often in it as the
/// others: windows that would reach beyond an end are moved to it.
fn window(n: usize, width: u64, draw: &mut Draw) -> usize {
    let width = (width as usize).clamp(1, n.max(1));
    let start = draw.below((n + width - 1) as u64) as usize;
    start.saturating_sub(width - 1).min(n.saturating_sub(width))
}

/// The free slots of each repository as a Fenwick tree, to draw a repository in proportion.
struct Area {
    sums: Vec<i64>,
    total: i64,
}

impl Area {
    fn new(n: usize) -> Self {
        Self { sums: vec![0; n.next_power_of_two() + 1], total: 0 }
    }

    fn add(&mut self, i: usize, more: i64) {
        self.total += more;
        let mut node = i + 1;
        while node < self.sums.len() {
            self.sums[node] += more;
            node += node & node.wrapping_neg();
        }
    }

    fn draw(&self, draw: &mut Draw) -> Option<usize> {
        if self.total <= 0 {
            return None;
        }
        let mut rest = draw.below(self.total as u64) as i64;
        let (mut at, mut step) = (0, self.sums.len() - 1);
        while step > 0 {
            if at + step < self.sums.len() && self.sums[at + step] <= rest {
                at += step;
                rest -= self.sums[at];
            }
            step /= 2;
        }
        Some(at)
    }
}
