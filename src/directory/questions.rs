//! The way of a question to the worker that holds the room, and of the answer back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::oneshot;

use super::{Directory, Mail};
use crate::ids::RoomName;
use crate::media::message::administration::{Answer, Question, RoomRefusal, RoomRequest, Ticket};

impl Directory {
    /// Asks a room. Waits while the mailbox of its worker is full, and for the answer, which the
    /// worker gives as soon as it has read the question.
    pub async fn ask(self: &Arc<Self>, room: &RoomName, request: RoomRequest) -> Answer {
        let (worker, seat) = match request {
            // Holds the entry until the shard has the room.
            RoomRequest::Create(_) => {
                let placement = self.place_at_home(room).map_err(RoomRefusal::Refused)?;
                (placement.seat.worker, Some(placement.seat))
            }
            _ => (self.worker_of(room).ok_or(RoomRefusal::RoomMissing)?, None),
        };
        let (reply, answer) = oneshot::channel();
        let question = Question {
            ticket: Ticket(self.next_ticket.fetch_add(1, Ordering::Relaxed)),
            room: room.clone(),
            request,
        };
        let mail = Mail::Ask {
            question,
            reply,
            seat,
        };
        let mailbox = &self.workers[worker].mailbox;
        let gone = RoomRefusal::Internal;
        mailbox.send(mail).await.map_err(|_| gone)?;
        answer.await.unwrap_or(Err(gone))
    }

    /// The rooms that shards hold, in no order.
    pub fn open_rooms(&self) -> Vec<RoomName> {
        let open = self.rooms.iter().filter(|entry| entry.home().open);
        open.map(|entry| entry.key().clone()).collect()
    }

    fn worker_of(&self, room: &RoomName) -> Option<usize> {
        let entry = self.rooms.get(room)?;
        let home = entry.home();
        home.open.then_some(home.worker)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::super::Limits;
    use super::*;
    use crate::ids::WorkerId;
    use crate::media::message::administration::{Fact, RoomOptions};

    #[tokio::test]
    async fn a_question_goes_to_the_worker_of_the_room_and_the_answer_comes_back() {
        let (mailbox, mut mail) = mpsc::channel(1);
        let limits = Limits {
            participants: 9,
            rooms: 9,
            participants_per_worker: 0,
        };
        let directory = Arc::new(Directory::new(vec![mailbox], limits));
        let red = RoomName::from("red");
        let missing = directory.ask(&red, RoomRequest::Describe).now_or_never();
        assert_eq!(missing, Some(Err(RoomRefusal::RoomMissing)));

        let create = RoomRequest::Create(RoomOptions::default());
        let mut asked = Box::pin(directory.ask(&red, create));
        assert!(asked.as_mut().now_or_never().is_none());
        let Ok(Mail::Ask { reply, seat, .. }) = mail.try_recv() else {
            panic!("no question");
        };
        assert!(directory.open_rooms().is_empty(), "not opened yet");
        directory.opened(&red, WorkerId(0));
        assert_eq!(directory.open_rooms(), std::slice::from_ref(&red));
        reply.send(Ok(Fact::Done)).unwrap();
        drop(seat);
        assert_eq!(asked.await, Ok(Fact::Done));
        assert_eq!(directory.seats(), 0);
        assert!(directory.exists(&red), "the worker holds it");

        let mut asked = Box::pin(directory.ask(&red, RoomRequest::Delete));
        assert!(asked.as_mut().now_or_never().is_none());
        drop(mail);
        assert_eq!(asked.await, Err(RoomRefusal::Internal), "the worker ended");
    }
}
