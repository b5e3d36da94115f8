//! The schedule on a device and a clock that are not there: every run takes what its shape costs, and a whole day of work is
//! stepped through in one thread.

use std::collections::HashSet;

use super::*;

/// Seconds that a run takes, of fixed and of token cost.
const FIXED: f64 = 0.004;
const PER_TOKEN: f64 = 0.0005;
const RUN_COST: usize = 8;

struct Padded {
    max_tokens: usize,
}

impl Device for Padded {
    fn fits(&self, shape: Shape) -> bool {
        shape.rows <= 64 && (shape.rows == 1 || shape.positions() <= self.max_tokens)
    }

    fn cost(&self, shape: Shape) -> usize {
        shape.positions()
    }

    fn run_cost(&self) -> usize {
        RUN_COST
    }
}

fn takes(shape: Shape) -> Duration {
    Duration::from_secs_f64(FIXED + PER_TOKEN * shape.positions() as f64)
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// One device, its clock, and what became of each request.
struct Machine {
    schedule: Schedule,
    device: Padded,
    fit: Fit,
    now: Duration,
    next: u64,
    /// Of each request: class, arrival, rows that are left, and when it was done.
    requests: HashMap<u64, (Class, Duration, HashSet<usize>, Option<Duration>)>,
    /// Time that each class had, and all runs with their length.
    spent: HashMap<Class, Duration>,
    runs: Vec<(Vec<Row>, Duration)>,
    hopeless: Vec<u64>,
}

impl Machine {
    fn new(order: Order) -> Self {
        Self {
            schedule: Schedule::new(order, 10, Duration::from_millis(100), 1),
            device: Padded { max_tokens: 1024 },
            fit: Fit::default(),
            now: Duration::ZERO,
            next: 0,
            requests: HashMap::new(),
            spent: HashMap::new(),
            runs: Vec::new(),
            hopeless: Vec::new(),
        }
    }

    fn submit(&mut self, class: Class, lengths: &[usize]) -> u64 {
        self.submit_until(class, lengths, None)
    }

    fn submit_until(&mut self, class: Class, lengths: &[usize], deadline: Option<Duration>) -> u64 {
        self.next += 1;
        self.schedule.add(self.next, class, lengths, deadline, self.now, &self.fit);
        self.requests.insert(self.next, (class, self.now, (0..lengths.len()).collect(), None));
        self.next
    }

    /// Runs once; returns whether there was anything to run.
    fn step(&mut self) -> bool {
        let pull = self.schedule.pull(self.now, &self.device, &self.fit);
        self.hopeless.extend(&pull.hopeless);
        if pull.rows.is_empty() {
            return false;
        }
        let shape = shape_of(&pull.rows);
        assert!(self.device.fits(shape), "{shape:?}");
        let time = takes(shape);
        self.now += time;
        self.fit.add(self.device.cost(shape), shape.tokens, time);
        for row in &pull.rows {
            let (class, _, left, done) = self.requests.get_mut(&row.request).unwrap();
            assert!(left.remove(&row.index), "{row:?} ran twice");
            if left.is_empty() {
                *done = Some(self.now);
            }
            let share = time.mul_f64(row.tokens as f64 / shape.tokens as f64);
            *self.spent.entry(*class).or_default() += share;
        }
        self.runs.push((pull.rows, time));
        true
    }

    fn latency(&self, request: u64) -> Duration {
        let (_, arrival, _, done) = &self.requests[&request];
        done.unwrap() - *arrival
    }

    /// How much of the time bulk had.
    fn bulk_share(&self) -> f64 {
        let of = |class| self.spent.get(&class).copied().unwrap_or_default().as_secs_f64();
        of(Class::Bulk) / (of(Class::Bulk) + of(Class::Interactive))
    }
}

#[test]
fn no_row_is_lost_or_runs_twice_and_tokens_are_conserved() {
    for seed in 0..40 {
        for order in [Order::Fair, Order::Arrival] {
            let (mut machine, mut dice) = (Machine::new(order), Dice(seed));
            let mut removed = HashSet::new();
            for _ in 0..300 {
                match dice.below(4) {
                    0 | 1 => {
                        let class = if dice.below(3) == 0 { Class::Bulk } else { Class::Interactive };
                        let most = if class == Class::Bulk { 60 } else { 3 };
                        let lengths: Vec<_> = (0..1 + dice.below(most)).map(|_| 2 + dice.below(700)).collect();
                        let soon = machine.now + Duration::from_millis(dice.below(3000) as u64);
                        let deadline = (dice.below(5) == 0).then_some(soon);
                        machine.submit_until(class, &lengths, deadline);
                    }
                    2 => {
                        let request = 1 + dice.below(machine.next.max(1) as usize) as u64;
                        machine.schedule.remove(request);
                        removed.insert(request);
                    }
                    _ => {
                        machine.step();
                    }
                }
                let (interactive, bulk) = machine.schedule.tokens();
                let counted: usize = machine
                    .schedule
                    .interactive
                    .values()
                    .chain(machine.schedule.bulk.values())
                    .map(|row| row.tokens)
                    .sum();
                assert_eq!(interactive + bulk, counted);
            }
            while machine.step() {}
            assert_eq!((machine.schedule.tokens(), machine.schedule.rows()), ((0, 0), (0, 0)));
            for (id, (_, _, left, _)) in &machine.requests {
                assert!(left.is_empty() || removed.contains(id) || machine.hopeless.contains(id), "{id}: {left:?}");
            }
        }
    }
}

#[test]
fn a_request_without_interactive_ones_beside_it_has_the_whole_device() {
    let mut machine = Machine::new(Order::Fair);
    let one = machine.submit(Class::Bulk, &[100; 200]);
    while machine.step() {}
    // Ten rows of 100 tokens a run.
    assert_eq!(machine.runs.len(), 20);
    assert_eq!(machine.latency(one), machine.now);
}

#[test]
fn a_query_waits_for_one_short_run_at_most_while_bulk_runs() {
    let mut machine = Machine::new(Order::Fair);
    for _ in 0..4 {
        machine.submit(Class::Bulk, &[150; 400]);
    }
    // One query tells that there are queries; from then on bulk runs are short.
    machine.submit(Class::Interactive, &[20]);
    machine.step();
    let mut worst = Duration::ZERO;
    for _ in 0..300 {
        // It arrives just after a run has begun, which is the worst moment.
        let began = machine.now;
        machine.step();
        let arrival = began + Duration::from_nanos(1);
        let now = std::mem::replace(&mut machine.now, arrival);
        let query = machine.submit(Class::Interactive, &[20]);
        machine.now = now;
        machine.step();
        worst = worst.max(machine.latency(query));
    }
    // The run before it, of at most 100 ms or one row, and its own run.
    assert!(worst <= Duration::from_millis(100) + takes(Shape::padded(1, 20)) * 2, "{worst:?}");
    assert!(machine.bulk_share() > 0.5, "bulk gets what queries leave: {}", machine.bulk_share());
}

#[test]
fn bulk_gets_its_tenth_however_many_queries_wait_and_however_many_requests_it_is() {
    for requests in [1, 20] {
        let mut machine = Machine::new(Order::Fair);
        for _ in 0..requests {
            machine.submit(Class::Bulk, &vec![150; 4000 / requests]);
        }
        // More queries than the device can run: what waits grows, and so does the time that each one waits.
        let mut dice = Dice(requests as u64);
        let mut next = Duration::ZERO;
        while machine.now < Duration::from_secs(100) {
            while next <= machine.now {
                let now = std::mem::replace(&mut machine.now, next);
                machine.submit(Class::Interactive, &[20 + dice.below(200)]);
                machine.now = now;
                next += Duration::from_millis(30);
            }
            assert!(machine.step());
        }
        assert!(machine.schedule.rows().0 > 100, "queries wait all the time");
        let share = machine.bulk_share();
        assert!((0.08..=0.13).contains(&share), "{requests} requests: {share}");
    }
}

#[test]
fn a_single_row_of_bulk_does_not_pass_for_a_query() {
    let mut machine = Machine::new(Order::Fair);
    machine.submit(Class::Interactive, &[20]);
    machine.step();
    for _ in 0..50 {
        machine.submit(Class::Bulk, &[150]);
    }
    let query = machine.submit(Class::Interactive, &[20]);
    machine.step();
    assert!(machine.requests[&query].3.is_some(), "it runs first");
}

#[test]
fn short_requests_pass_long_ones_that_came_with_them() {
    let mut machine = Machine::new(Order::Fair);
    machine.submit(Class::Interactive, &[20]);
    machine.step();
    let long = machine.submit(Class::Interactive, &[300; 3]);
    let short = machine.submit(Class::Interactive, &[20]);
    while machine.step() {}
    assert!(machine.latency(short) < machine.latency(long) / 2);
}

#[test]
fn bulk_requests_advance_alike_whatever_their_size() {
    let mut machine = Machine::new(Order::Fair);
    let large = machine.submit(Class::Bulk, &[100; 2000]);
    for _ in 0..20 {
        machine.step();
    }
    let small = machine.submit(Class::Bulk, &[100; 50]);
    let began = machine.now;
    while machine.requests[&small].3.is_none() {
        machine.step();
    }
    let of_large = machine.runs.iter().flat_map(|(rows, _)| rows).filter(|row| row.request == large).count();
    assert!(of_large < 20 * 10 + 100, "half of the rows were the small one's: {of_large}");
    assert!(machine.latency(small) < (machine.now - began) + Duration::from_nanos(1));
}

#[test]
fn rows_that_run_together_are_of_like_length() {
    let (mut machine, mut dice) = (Machine::new(Order::Fair), Dice(3));
    let lengths: Vec<_> = (0..3000).map(|_| 10 + dice.below(500)).collect();
    machine.submit(Class::Bulk, &lengths);
    while machine.step() {}
    let computed: usize = machine.runs.iter().map(|(rows, _)| shape_of(rows).positions()).sum();
    let waste = 1.0 - lengths.iter().sum::<usize>() as f64 / computed as f64;
    println!("{:.1} % of {computed} positions are padding", 100.0 * waste);
    assert!(waste < 0.05, "{waste}");
}

#[test]
fn bulk_takes_only_seats_of_a_query_that_are_free() {
    let mut machine = Machine::new(Order::Fair);
    machine.submit(Class::Interactive, &[4]);
    machine.step();
    machine.submit(Class::Bulk, &[4, 4, 50]);
    machine.submit(Class::Interactive, &[4]);
    machine.step();
    // Two rows of four tokens cost no more than the fixed cost of a run; a third one would.
    let lengths: Vec<_> = machine.runs[1].0.iter().map(|row| row.tokens).collect();
    assert_eq!(lengths, [4, 4]);
}

#[test]
fn what_cannot_meet_its_deadline_does_not_run() {
    let mut machine = Machine::new(Order::Fair);
    machine.submit(Class::Interactive, &[500]);
    machine.step();
    let late = machine.submit_until(Class::Interactive, &[500], Some(machine.now + Duration::from_millis(20)));
    let good = machine.submit_until(Class::Interactive, &[500], Some(machine.now + Duration::from_secs(9)));
    while machine.step() {}
    assert_eq!(machine.hopeless, [late]);
    assert_eq!(machine.requests[&late].2.len(), 1);
    assert!(machine.requests[&good].2.is_empty());
}

#[test]
fn in_order_of_arrival_a_query_waits_for_all_of_bulk() {
    let mut machine = Machine::new(Order::Arrival);
    let bulk = machine.submit(Class::Bulk, &[150; 400]);
    let query = machine.submit(Class::Interactive, &[20]);
    while machine.step() {}
    assert!(machine.latency(query) >= machine.latency(bulk));
}
