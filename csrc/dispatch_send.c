/* Owns the way of a connection from a hand into a worker's channel, and the accounting of it. Must not
 * know where the connection came from. A connection leaves the hand only when the kernel took it. */
#include <errno.h>
#include <string.h>

#include "dispatcher.h"
#include "ledger.h"

/* The turn goes to the one after `index`. A partial listener has its own, so that whoever has a channel
 * for more of them keeps its share of each. */
static void advance(struct rr__dispatcher *d, int listener, int index)
{
    if (rr__partial(d, listener)) {
        d->listeners[listener].turn_after = d->slots.ready[index]->id;
        d->listeners[listener].turn_slot = d->slots.ready[index]->slot + 1;
        return;
    }
    d->slots.turn = index + 1 < d->slots.ready_count ? index + 1 : 0;
}

/* Full for now (also ETOOMANYREFS: this user's fds in flight): EPOLLOUT would lie, so ask again soon. */
static void pause_worker(struct rr__dispatcher *d, struct rr__worker *worker)
{
    worker->pause_ns = d->now + RR__MS;
    rr__pass_over(d, worker->ready_index);
}

static void note_sent(struct rr__dispatcher *d, struct rr__channel *channel, int count)
{
    channel->sent_ns[channel->sent % RR__RING] = d->now;
    channel->counts[channel->sent % RR__RING] = (uint8_t)count;
    channel->sent++;
    rr__watch_soon(d, d->now + d->settings.stall_timeout);
}

static void note(int event, const struct rr__worker *worker, const int *fds, int count)
{
    struct rr__ledger_worker named = {worker->id, worker->slot, worker->generation};

    if (rr__ledger_on())
        rr__ledger_connections(event, named, fds, count);
}

/* Closes our copies of what was sent. The kernel hands out the lowest free numbers, so those of
 * a round are neighbours, whomever they went to: one call closes them all. How many there were. */
int rr__let_go(struct rr__dispatcher *d)
{
    int count = d->gone_count, *fds = d->gone;

    for (int first = 0, last; first < count; first = last + 1) {
        for (last = first; last + 1 < count && fds[last + 1] == fds[last] + 1;)
            last++;
        d->system->close_range((unsigned)fds[first], (unsigned)fds[last]);
    }
    d->gone_count = 0;
    return count;
}

/* Together with others, microseconds from now and at the latest at the end of the round: until then a close
 * by the worker is not the last. */
static void let_go_soon(struct rr__dispatcher *d, int fd)
{
    if (d->gone_count == RR__GONE)
        rr__let_go(d);
    int at = d->gone_count++;
    for (; at > 0 && d->gone[at - 1] > fd; at--)
        d->gone[at] = d->gone[at - 1];
    d->gone[at] = fd;
}

static int send_message(struct rr__dispatcher *d, struct rr__worker *worker, int index,
                        const struct rr_message *message, const int *fds)
{
    struct rr__channel *channel = &worker->channel[index];

    note(RR_LEDGER_SENT, worker, fds, message->count);
    int result = d->system->send(channel->sender, message, fds);
    if (result < 0) {
        note(RR_LEDGER_UNSENT, worker, fds, message->count);
        return result;
    }
    for (int i = 0; i < message->count; i++)
        let_go_soon(d, fds[i]);
    if (message->count == 1 && d->gone_count >= RR__GONE_FEW)
        rr__let_go(d);
    note_sent(d, channel, message->count);
    worker->sent += message->count;
    worker->given += message->count;
    __atomic_store_n(&worker->board->sent, worker->sent, __ATOMIC_RELEASE);
    d->sent += message->count;
    return 0;
}

/* Sends the first connection of the hand; the peer is known of the first one only. */
static int send_first(struct rr__dispatcher *d, struct rr__worker *worker, struct rr__hand *hand)
{
    hand->message.count = 1;
    int result = send_message(d, worker, hand->listener, &hand->message, hand->fds);
    if (result < 0)
        return result;
    hand->count--;
    if (hand->count > 0) {
        memmove(hand->fds, hand->fds + 1, (size_t)hand->count * sizeof *hand->fds);
        hand->message.peer_length = 0;
    }
    return 0;
}

static int flush_outbox(struct rr__dispatcher *d, struct rr__worker *worker)
{
    struct rr__hand *outbox = &worker->outbox;

    outbox->message.count = (uint8_t)outbox->count;
    int result = send_message(d, worker, outbox->listener, &outbox->message, outbox->fds);
    if (result < 0)
        pause_worker(d, worker);
    else
        outbox->count = 0;
    return result;
}

/* For a worker that starts all connections of a message at once: a message holds up to `batch`. */
static int collect(struct rr__dispatcher *d, struct rr__worker *worker, struct rr__hand *hand)
{
    struct rr__hand *outbox = &worker->outbox;

    if (outbox->count > 0 && (outbox->listener != hand->listener || outbox->count >= worker->batch)) {
        int result = flush_outbox(d, worker);
        if (result < 0)
            return result;
    }
    if (outbox->count == 0) {
        outbox->message = hand->message;
        outbox->listener = hand->listener;
    }
    if (!worker->collecting)
        d->collected[d->collected_count++] = worker;
    worker->collecting = 1;
    outbox->fds[outbox->count++] = hand->fds[0];
    hand->count = 0;
    if (outbox->count >= worker->batch)
        flush_outbox(d, worker);
    return 0;
}

/* Gives the accepted connection in the hand to ready[index]. 0, or -errno with the hand as it was. */
int rr__give(struct rr__dispatcher *d, int index, struct rr__hand *hand)
{
    struct rr__worker *worker = d->slots.ready[index];
    struct rr_candidate *one = &d->candidates[index];
    int result = worker->batch > 1 ? collect(d, worker, hand) : send_first(d, worker, hand);

    if (result < 0) {
        pause_worker(d, worker);
        return result;
    }
    worker->picks++;
    if (one->pending == 0) {
        worker->moved_ns = d->now;
        one->fresh = 1;
    }
    if (++one->pending >= worker->limit)
        rr__pass_over(d, index);
    advance(d, hand->listener, index);
    return 0;
}

/* Places what is in the hand, one by one, as far as there is room. Moved ones don't change the count
 * and the turn of `strict`. Connections left in the hand. */
int rr__place(struct rr__dispatcher *d, struct rr__hand *hand, int moved)
{
    int apart = moved && d->settings.policy == RR_STRICT;

    while (hand->count > 0) {
        int index = rr__next_of(d, hand, moved);
        if (index < 0)
            break;
        struct rr__worker *worker = d->slots.ready[index];
        if (send_first(d, worker, hand) < 0) {
            pause_worker(d, worker);
            continue;
        }
        if (++d->candidates[index].pending >= worker->limit)
            rr__pass_over(d, index);
        if (apart)
            d->move_turn = index + 1;
        else
            advance(d, hand->listener, index);
        d->moved += (uint64_t)(moved != 0);
        worker->picks += (uint64_t)(moved == 0);
    }
    rr__let_go(d); /* a reclaimer that is forked next is not to inherit them */
    return hand->count;
}

/* Back into the channel that it came from: nothing is lost when nobody else can have it. */
int rr__put_back(struct rr__dispatcher *d, struct rr__worker *worker, int channel,
                 struct rr__hand *hand)
{
    int result = 0;

    hand->listener = channel;
    while (hand->count > 0 && result == 0)
        result = send_first(d, worker, hand);
    rr__let_go(d);
    return result;
}

int rr__send_probe(struct rr__dispatcher *d, struct rr__worker *worker, int channel)
{
    struct rr_message probe = {.version = RR_PROTOCOL,
                               .kind = RR_KIND_PROBE,
                               .count = 1,
                               .accepted_ns = d->now};
    int result = d->system->send(worker->channel[channel].sender, &probe, &d->null);

    if (result == 0)
        note_sent(d, &worker->channel[channel], 0);
    return result;
}

/* Who died or was parked since it was collected for is sent nothing more: it goes to somebody else. */
static int flush_usable(struct rr__dispatcher *d, struct rr__worker *worker)
{
    if (worker->state != RR_STATE_READY || worker->stalled || d->now < worker->pause_ns)
        return -EAGAIN;
    return flush_outbox(d, worker);
}

/* Sends what was collected in this round. What finds no room stays collected. */
void rr__flush(struct rr__dispatcher *d)
{
    int kept = 0;

    for (int i = 0; i < d->collected_count; i++) {
        struct rr__worker *worker = d->collected[i];
        worker->collecting = worker->outbox.count > 0 && flush_usable(d, worker) < 0;
        if (worker->collecting)
            d->collected[kept++] = worker;
    }
    d->collected_count = kept;
}

/* Tries again to place what is held. Connections that still are: nothing is accepted then. */
int rr__retry_held(struct rr__dispatcher *d)
{
    int kept = 0, held = 0;

    if (d->hand.count > 0 && rr__place(d, &d->hand, 0) > 0)
        held += rr__set_aside(d, &d->hand);
    for (int i = 0; i < d->collected_count; i++) {
        struct rr__worker *worker = d->collected[i];
        if (worker->outbox.count > 0)
            flush_usable(d, worker);
        if (worker->outbox.count > 0 && rr__place(d, &worker->outbox, 0) > 0)
            held += rr__set_aside(d, &worker->outbox);
        worker->collecting = worker->outbox.count > 0;
        if (worker->collecting)
            d->collected[kept++] = worker;
    }
    d->collected_count = kept;
    return held;
}
