//! The queue on the mini model: the same numbers whatever the load, and how requests end.

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use nvembed::queue::{Class, Order, Pending, Queue, QueueOptions, SubmitOptions};
use nvembed::{CancelToken, EmbedOptions, Embedder, ErrorKind, Prompt, Truncation};

use crate::common::{BATCH_INVARIANCE, open};

fn embedder() -> Arc<Embedder> {
    static EMBEDDER: OnceLock<Arc<Embedder>> = OnceLock::new();
    Arc::clone(EMBEDDER.get_or_init(|| Arc::new(open("fp32"))))
}

fn queue(change: impl FnOnce(&mut QueueOptions)) -> Queue {
    let mut options = QueueOptions::default();
    change(&mut options);
    Queue::start(embedder(), options).unwrap()
}

fn submit_options(change: impl FnOnce(&mut SubmitOptions)) -> SubmitOptions {
    let mut options = SubmitOptions::default();
    change(&mut options);
    options
}

/// Texts of mixed lengths, some with an instruction.
fn prompts(seed: usize, count: usize) -> Vec<Prompt<'static>> {
    let prompt = |row: usize| {
        let text = format!("text {seed} ") + &"and some more words ".repeat((seed * 7 + row * 5) % 23);
        if row.is_multiple_of(3) {
            Prompt::query("Find what answers the question", text)
        } else {
            Prompt::passage(text)
        }
    };
    (0..count).map(prompt).collect()
}

/// Keeps the queue's one thread busy until the sender is used or dropped: what is submitted in the meantime waits.
fn hold(queue: &Queue) -> (Sender<()>, Pending) {
    let caller = std::thread::current().id();
    loop {
        let (release, released) = channel::<()>();
        let (began, has_begun) = channel();
        let ticket = queue.submit(&[Prompt::passage("hold")], &SubmitOptions::default()).unwrap();
        let pending = ticket.on_done(move |_| {
            // What is done before the callback is there calls it here, which holds nothing.
            let holds = std::thread::current().id() != caller;
            began.send(holds).unwrap();
            if holds {
                let _ = released.recv();
            }
        });
        if has_begun.recv().unwrap() {
            return (release, pending);
        }
    }
}

struct Told(Sender<()>);

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        let _ = self.0.send(());
    }
}

/// Polls a future when its waker says so, and only then.
fn block_on<F: Future>(future: F) -> F::Output {
    let (told, tells): (Sender<()>, Receiver<()>) = channel();
    let waker = Waker::from(Arc::new(Told(told)));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        tells.recv_timeout(Duration::from_secs(60)).expect("the waker is told");
    }
}

#[test]
fn embeddings_are_the_same_whatever_the_load() {
    for order in [Order::Fair, Order::Arrival] {
        let queue = queue(|options| options.order = order);
        let worst = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8)
                .map(|caller| {
                    let queue = &queue;
                    scope.spawn(move || {
                        let (count, class) =
                            if caller < 2 { (40, Class::Bulk) } else { (1 + caller % 3, Class::Interactive) };
                        let options = submit_options(|options| options.class = Some(class));
                        let mut worst = 0.0_f32;
                        for request in 0..3 {
                            let prompts = prompts(caller * 10 + request, count);
                            let ticket = queue.submit(&prompts, &options).unwrap();
                            let found = if request % 2 == 0 { ticket.wait() } else { block_on(ticket) }.unwrap();
                            let alone = embedder().embed(&prompts, &EmbedOptions::default()).unwrap();
                            assert_eq!(found.token_counts(), alone.token_counts());
                            let far = &found.to_f32() - &alone.to_f32();
                            worst = far.iter().fold(worst, |worst, far| worst.max(far.abs()));
                        }
                        worst
                    })
                })
                .collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).fold(0.0_f32, f32::max)
        });
        println!("{order:?}: at most {worst:e} from a call alone");
        assert!(worst <= BATCH_INVARIANCE, "{worst}");
        let stats = queue.stats();
        let admitted = stats.interactive.admitted_rows + stats.bulk.admitted_rows;
        assert_eq!((stats.run_rows, stats.abandoned_waiting_rows), (admitted, 0));
        assert_eq!(stats.run_tokens, stats.interactive.admitted_tokens + stats.bulk.admitted_tokens);
        assert_eq!(
            (stats.interactive.waiting_tokens, stats.bulk.waiting_tokens, queue.drain(Duration::MAX)),
            (0, 0, 0)
        );
    }
}

#[test]
fn what_is_abandoned_or_cancelled_does_not_run() {
    let queue = queue(|_| ());
    let (release, pending) = hold(&queue);
    let cancel = CancelToken::new();
    let with_token = submit_options(|options| options.embed.cancel = Some(cancel.clone()));
    let (dropped, kept) = (queue.submit(&prompts(1, 5), &SubmitOptions::default()), prompts(2, 3));
    let kept = queue.submit(&kept, &SubmitOptions::default()).unwrap();
    let cancelled = queue.submit(&prompts(3, 4), &with_token).unwrap();
    drop(dropped.unwrap());
    cancel.cancel();
    // They end now, not when a device is free.
    assert_eq!(cancelled.wait().unwrap_err().kind(), ErrorKind::Cancelled);
    let (told, tells) = channel();
    let callback = queue.submit(&prompts(4, 2), &SubmitOptions::default()).unwrap();
    drop(callback.on_done(move |result| told.send(result.map(|_| ()).map_err(|error| error.kind())).unwrap()));
    assert_eq!(tells.recv().unwrap(), Err(ErrorKind::Cancelled));
    assert_eq!(queue.stats().abandoned_waiting_rows, 5 + 4 + 2);
    drop(release);
    assert_eq!(kept.wait().unwrap().len(), 3);
    pending.detach();
    assert_eq!(queue.drain(Duration::MAX), 0);
    // The three, and those that held it.
    let stats = queue.stats();
    assert_eq!(stats.run_rows, stats.interactive.admitted_rows - 11);
}

#[test]
fn a_run_that_is_ended_for_want_of_a_waiter_did_not_fail() {
    let queue = queue(|_| {});
    let ticket = queue.submit(&[Prompt::passage("word ".repeat(3000))], &SubmitOptions::default()).unwrap();
    while queue.stats().running_rows == 0 {
        std::thread::yield_now();
    }
    drop(ticket);
    assert_eq!(queue.drain(Duration::MAX), 0);
    let stats = queue.stats();
    assert_eq!((stats.runs, stats.abandoned_running_rows, stats.failed_runs), (1, 1, 0));
}

#[test]
fn a_deadline_ends_the_wait_and_drops_the_rows() {
    let queue = queue(|_| ());
    let (release, _pending) = hold(&queue);
    let soon = submit_options(|options| options.embed.deadline = Some(Instant::now() + Duration::from_secs(1)));
    let text = [Prompt::passage("hold")];
    let ticket = queue.submit(&text, &soon).unwrap();
    assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(queue.stats().abandoned_waiting_rows, 1);
    // It has passed before it is submitted.
    let error = queue.submit(&text, &soon).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    drop(release);
}

#[test]
fn a_wait_that_ends_early_gives_the_ticket_back() {
    let queue = queue(|_| {});
    let (go, held) = hold(&queue);
    let ticket = queue.submit(&prompts(1, 1), &SubmitOptions::default()).unwrap();
    let ticket = ticket.wait_for(Duration::from_millis(20)).unwrap_err();
    go.send(()).unwrap();
    let found = ticket.wait_for(Duration::from_secs(60)).unwrap().unwrap();
    let wanted = embedder().embed(&prompts(1, 1), &EmbedOptions::default()).unwrap();
    assert_eq!(found.to_f32(), wanted.to_f32());
    held.detach();
}

#[test]
fn a_full_queue_refuses_with_an_estimate_and_keeps_room_for_queries() {
    let queue = queue(|options| options.max_tokens = 1000);
    let (release, _pending) = hold(&queue);
    let one = [Prompt::passage("one ".repeat(160))];
    let (bulk, query) = (submit_options(|options| options.class = Some(Class::Bulk)), SubmitOptions::default());
    let mut tickets = Vec::new();
    let refused = loop {
        match queue.submit(&one, &bulk) {
            Ok(ticket) => tickets.push(ticket),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.retry_after().unwrap() >= Duration::from_millis(10), "{refused}");
    let waiting = queue.stats().bulk.waiting_tokens;
    assert!(waiting > 0 && waiting <= 900, "{waiting}");
    tickets.push(queue.submit(&[Prompt::passage("a query")], &query).unwrap());
    // What never fits is no matter of trying again.
    let error = queue.submit(&vec![one[0].clone(); 20], &query).unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Option, None));
    drop(release);
    for ticket in tickets {
        ticket.wait().unwrap();
    }
    assert_eq!(queue.stats().bulk.refused_requests, 1);
    queue.submit(&one, &bulk).unwrap().wait().unwrap();
}

#[test]
fn a_closed_queue_finishes_what_it_admitted_and_a_drained_one_ends_the_rest() {
    let queue = queue(|_| ());
    let (release, pending) = hold(&queue);
    pending.detach();
    let ticket = queue.submit(&prompts(1, 2), &SubmitOptions::default()).unwrap();
    queue.close();
    assert_eq!(queue.submit(&prompts(1, 1), &SubmitOptions::default()).unwrap_err().kind(), ErrorKind::Closed);
    drop(release);
    assert_eq!(ticket.wait().unwrap().len(), 2);

    let queue = self::queue(|_| ());
    let (release, pending) = hold(&queue);
    pending.detach();
    let ticket = queue.submit(&prompts(1, 2), &SubmitOptions::default()).unwrap();
    let left = std::thread::scope(|scope| {
        let draining = scope.spawn(|| queue.drain(Duration::ZERO));
        assert_eq!(ticket.wait().unwrap_err().kind(), ErrorKind::Closed);
        drop(release);
        draining.join().unwrap()
    });
    assert_eq!(left, 1);
}

#[test]
fn what_is_not_a_requests_option_is_refused_and_no_prompts_are_no_rows() {
    let queue = queue(|_| ());
    let error = queue.submit(&prompts(1, 1), &submit_options(|options| options.embed.max_batch_size = 3)).unwrap_err();
    assert!(error.kind() == ErrorKind::Option && error.to_string().contains("`max_batch_size`"), "{error}");
    assert!(queue.submit(&[], &SubmitOptions::default()).unwrap().wait().unwrap().is_empty());
    let texts = [Prompt::passage("good"), Prompt::passage("far too long for this limit")];
    let short = submit_options(|options| {
        (options.embed.max_length, options.embed.truncation) = (Some(4), Truncation::Error);
    });
    let error = queue.submit(&texts, &short).unwrap_err();
    assert!(error.kind() == ErrorKind::TooLong && error.to_string().contains("prompt 1"), "{error}");
    assert_eq!(queue.stats().runs, 0);
    let mut options = QueueOptions::default();
    options.bulk_weight = 0;
    assert_eq!(Queue::start(embedder(), options).unwrap_err().kind(), ErrorKind::Option);
}
