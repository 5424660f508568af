//! What becomes of notices, and of those who don't read them.

use super::*;
use crate::directory;
use crate::media::message::administration::{Question, RoomRequest};
use crate::media::message::{Codec, Departure, Join, LeaveAction, LeaveReason};
use crate::signal::grant::Grant;
use futures_util::FutureExt;
use tokio::task::LocalSet;

/// A worker without sockets.
fn worker() -> Worker {
    let limits = directory::Limits {
        participants: 9,
        rooms: 9,
        participants_per_worker: 0,
    };
    let setup = Setup {
        id: WorkerId(0),
        sockets: Vec::new(),
        told: Vec::new(),
        local_tcp: Vec::new(),
        told_tcp: Vec::new(),
        team: Team::of(1, true).remove(0),
        flows: 0,
        buffers: Buffers {
            receive: 1 << 16,
            send: 1 << 16,
        },
        limits: Limits {
            rooms: 9,
            participants_per_room: 9,
            tracks_per_participant: 9,
            sdp_bytes: 1000,
            media_sections: 9,
            candidates: 9,
            packets_per_second: 1000,
            data_messages_per_second: 100,
            data_queue_bytes: 64 * 1024,
            connect_timeout: Duration::from_secs(9),
            empty_timeout: Duration::from_secs(9),
            departure_timeout: Duration::from_secs(9),
            name_bytes: 100,
            metadata_bytes: 100,
            attributes_bytes: 100,
            pause_video: false,
            loudest: 0,
            loudest_above: 0,
            last_n: 0,
            codecs: vec![Codec::Vp8, Codec::Opus],
        },
        mailbox: mpsc::channel(1).1,
        directory: Arc::new(Directory::new(Vec::new(), limits)),
        events: Events::new(None).0,
    };
    let reporter = watch::channel(Report::empty(Instant::now())).0;
    Worker::new(setup, reporter).unwrap()
}

fn left() -> Notice {
    Notice::Left(Departure {
        reason: LeaveReason::ServerShutdown,
        action: LeaveAction::Reconnect,
    })
}

fn offer_again() -> Notice {
    Notice::MediaSectionsRequired {
        audios: 0,
        videos: 0,
    }
}

/// A stay in `worker` with room for one notice.
fn stay(worker: &mut Worker) -> (SessionKey, notices::Receiver, Arc<Directory>) {
    let limits = directory::Limits {
        participants: 1,
        rooms: 1,
        participants_per_worker: 0,
    };
    let (mailbox, mut mail) = mpsc::channel(2);
    let directory = Arc::new(Directory::new(vec![mailbox], limits));
    let placement = directory.place(&"red".into()).unwrap();
    let (sender, receiver) = notices::queue(notices::Bounds {
        count: 1,
        bytes: 1000,
    });
    let joining = placement.open(Command::Join(Box::new(join(placement.session()))), sender);
    joining.now_or_never().unwrap().unwrap();
    worker.take_mail(mail.try_recv().unwrap(), Instant::now());
    (placement.session(), receiver, directory)
}

fn join(session: SessionKey) -> Join {
    Join {
        session,
        room: "red".into(),
        create_room: true,
        home: None,
        identity: "anna".into(),
        name: String::new(),
        metadata: String::new(),
        attributes: Default::default(),
        permissions: Grant::new("anna".into()).permissions,
        auto_subscribe: true,
        adaptive_stream: false,
        may_pause: None,
        two_connections: false,
        client: Default::default(),
    }
}

fn read(reader: &mut notices::Receiver) -> Option<Option<Notice>> {
    reader.recv().now_or_never()
}

#[test]
fn a_session_that_does_not_read_is_cut_off_and_its_stay_still_counts() {
    let mut worker = worker();
    let (session, mut reader, directory) = stay(&mut worker);
    worker.notify(session, offer_again());
    assert!(worker.unread.is_empty());
    worker.notify(session, offer_again());
    worker.notify(session, offer_again());
    assert_eq!(worker.unread, [session], "the shard is to be told");
    assert_eq!(read(&mut reader), Some(Some(offer_again())));
    assert_eq!(read(&mut reader), Some(None));
    worker.drain(Instant::now());
    assert!(worker.unread.is_empty());
    assert_eq!(directory.seats(), 1);
    worker.notify(session, left());
    assert_eq!(directory.seats(), 0);
}

#[test]
fn the_last_notice_closes_the_session_without_a_word_to_the_shard() {
    let mut worker = worker();
    let (session, mut reader, directory) = stay(&mut worker);
    worker.notify(session, left());
    worker.notify(session, offer_again());
    assert!(worker.stays.is_empty() && worker.unread.is_empty());
    assert_eq!(read(&mut reader), Some(Some(left())));
    assert_eq!(read(&mut reader), Some(None));
    assert_eq!(directory.seats(), 0);
}

#[tokio::test]
async fn mail_is_read_while_many_sockets_have_news() {
    let buffers = Buffers {
        receive: 1 << 14,
        send: 1 << 14,
    };
    let local = Bound::shared("127.0.0.1:0".parse().unwrap(), buffers);
    let local = local.unwrap().local();
    let clients: Vec<_> = (0..200)
        .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
        .collect();
    let mut worker = worker();
    let (mailbox, mail) = mpsc::channel(1);
    worker.mailbox = mail;
    worker.flows = Flows::new(clients.len(), buffers);
    for client in &clients {
        let remote = client.local_addr().unwrap();
        worker.flows.open_or_wait(Pair { local, remote }).unwrap();
    }
    let (stop, stopped) = oneshot::channel();
    let (reply, answer) = oneshot::channel();
    let asking = async {
        // The first turns find nothing, and arm all sockets.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        for client in &clients {
            client.send_to(&[0; 20], local).unwrap();
        }
        // The runtime hears of all, before the mail.
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        let question = Question {
            ticket: Ticket(1),
            room: "red".into(),
            request: RoomRequest::Describe,
        };
        let ask = Mail::Ask {
            question,
            reply,
            seat: None,
        };
        mailbox.try_send(ask).unwrap();
        let answered = tokio::time::timeout(Duration::from_secs(5), answer).await;
        let _ = stop.send(());
        answered.is_ok()
    };
    let tasks = LocalSet::new();
    // A task of its own, as it is alone on its thread otherwise.
    let working = tasks.spawn_local(worker.run(stopped));
    assert!(tasks.run_until(asking).await, "no answer");
    drop(working);
}
