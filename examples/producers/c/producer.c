/* A producer in C99:

       cc -std=c99 -o producer producer.c -lzmq
       ./producer ipc:///PATH/producers.ipc [SERVABLE METHOD]

   It speaks 7/MDP: asks whether the servable is there, sends two instances of two matrices, and
   prints what comes back. It needs libzmq only (Debian: libzmq3-dev); the little msgpack that a
   request takes is written by hand below. Source: docs/PROTOCOL.md §11, and §4 for the values. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

enum { TIMEOUT_MS = 11000, BUDGET_MS = 10000, ATTEMPTS = 3, FLOATS = 4, INSTANCES = 2 };

static void fail(const char *what, const char *detail) {
    fprintf(stderr, "%s: %s\n", what, detail);
    exit(1);
}

/* ------------------------------------------------------------ writing msgpack */

typedef struct {
    uint8_t bytes[4096];
    size_t size;
} Writer;

static void put(Writer *to, const void *bytes, size_t size) {
    if (size > sizeof to->bytes - to->size) fail("request", "it is larger than its buffer");
    memcpy(to->bytes + to->size, bytes, size);
    to->size += size;
}

static void put_byte(Writer *to, unsigned byte) {
    uint8_t one = (uint8_t)byte;
    put(to, &one, 1);
}

static void put_text(Writer *to, const char *text) {
    size_t size = strlen(text);
    if (size > 255) fail("text of more than 255 bytes", text);
    put_byte(to, 0xd9);
    put_byte(to, (unsigned)size);
    put(to, text, size);
}

/* A tensor is [dtype, shape, content]; content: the elements in C order, little-endian. */
static void put_float32_2x2(Writer *to, const float *numbers) {
    put_byte(to, 0x93);
    put_text(to, "float32");
    put(to, "\x92\x02\x02", 3);
    put_byte(to, 0xc4);
    put_byte(to, 4 * FLOATS);
    for (int at = 0; at < FLOATS; at++) {
        uint32_t bits;
        memcpy(&bits, &numbers[at], 4);
        for (int shift = 0; shift < 32; shift += 8) put_byte(to, bits >> shift & 0xff);
    }
}

/* ------------------------------------------------------------ reading msgpack */

typedef struct {
    const uint8_t *at, *end;
} Reader;

typedef struct {
    enum { NIL, INTEGER, TEXT, BINARY, ARRAY, MAP, OTHER } kind;
    uint64_t number;      /* the integer, or how many items or bytes follow */
    const uint8_t *bytes; /* of a text or binary */
} Item;

static uint64_t take(Reader *from, size_t size) {
    uint64_t number = 0;
    if ((size_t)(from->end - from->at) < size) fail("reply", "it ends too early");
    while (size--) number = number << 8 | *from->at++;
    return number;
}

static Item block(Reader *from, int kind, uint64_t size) {
    Item item = {kind, size, from->at};
    if ((uint64_t)(from->end - from->at) < size) fail("reply", "it ends too early");
    from->at += size;
    return item;
}

/* The next item. Behind an ARRAY of n come its n items, behind a MAP its n keys, each with its
   value. */
static Item next(Reader *from) {
    unsigned byte = (unsigned)take(from, 1);
    if (byte < 0x80) return (Item){INTEGER, byte, NULL};
    if (byte < 0x90) return (Item){MAP, byte & 0x0f, NULL};
    if (byte < 0xa0) return (Item){ARRAY, byte & 0x0f, NULL};
    if (byte < 0xc0) return block(from, TEXT, byte & 0x1f);
    if (byte >= 0xe0) return (Item){INTEGER, (uint64_t)(int8_t)byte, NULL};
    switch (byte) {
    case 0xc0: return (Item){NIL, 0, NULL};
    case 0xc2: case 0xc3: return (Item){OTHER, byte & 1, NULL};
    case 0xc4: case 0xc5: case 0xc6: return block(from, BINARY, take(from, 1u << (byte - 0xc4)));
    case 0xca: case 0xcb: return (Item){OTHER, take(from, byte == 0xca ? 4 : 8), NULL};
    case 0xcc: case 0xcd: case 0xce: case 0xcf:
        return (Item){INTEGER, take(from, 1u << (byte - 0xcc)), NULL};
    case 0xd0: case 0xd1: case 0xd2: case 0xd3:
        return (Item){INTEGER, take(from, 1u << (byte - 0xd0)), NULL}; /* the bits, without sign */
    case 0xd9: case 0xda: case 0xdb: return block(from, TEXT, take(from, 1u << (byte - 0xd9)));
    case 0xdc: case 0xdd: return (Item){ARRAY, take(from, byte == 0xdc ? 2 : 4), NULL};
    case 0xde: case 0xdf: return (Item){MAP, take(from, byte == 0xde ? 2 : 4), NULL};
    default: fail("reply", "it has an item that no reply has");
    }
    return (Item){NIL, 0, NULL};
}

static void skip(Reader *from) {
    Item item = next(from);
    uint64_t items = item.kind == ARRAY ? item.number : item.kind == MAP ? 2 * item.number : 0;
    while (items--) skip(from);
}

static int is(Item item, const char *text) {
    size_t size = strlen(text);
    return item.kind == TEXT && item.number == size && !memcmp(item.bytes, text, size);
}

/* Go to the value of a key of the map that comes next. Returns 0 if it has no such key. */
static int find(Reader *map, const char *key) {
    Item item = next(map);
    if (item.kind != MAP) fail("reply", "a map is missing");
    for (uint64_t at = 0; at < item.number; at++) {
        if (is(next(map), key)) return 1;
        skip(map);
    }
    return 0;
}

/* ------------------------------------------------------------ asking */

/* One request; the body of its reply is in `reply`, for zmq_msg_close. An attempt without a reply
   is given up with its socket, as ZeroMQ's guide has it in "Lazy Pirate"; it may then run twice. */
static void ask(void *context, const char *address, const char *service, const void *body,
                size_t size, zmq_msg_t *reply) {
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        void *socket = zmq_socket(context, ZMQ_REQ);
        int linger_ms = 0, timeout_ms = TIMEOUT_MS, more = 1, frames = 0;
        size_t more_size = sizeof more;
        zmq_setsockopt(socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_setsockopt(socket, ZMQ_RCVTIMEO, &timeout_ms, sizeof timeout_ms);
        if (zmq_connect(socket, address)) fail(address, zmq_strerror(zmq_errno()));
        zmq_send(socket, "MDPC01", 6, ZMQ_SNDMORE);
        zmq_send(socket, service, strlen(service), ZMQ_SNDMORE);
        zmq_send(socket, body, size, 0);
        while (more) { /* protocol, service, body; further frames are tensors of 64 KiB or more */
            zmq_msg_t frame;
            zmq_msg_init(&frame);
            if (zmq_msg_recv(&frame, socket, 0) < 0) break;
            if (++frames == 3) zmq_msg_move(reply, &frame);
            zmq_msg_close(&frame);
            zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &more_size);
        }
        zmq_close(socket);
        if (frames >= 3) return;
    }
    fail(address, "no reply came");
}

static void print_tensor(Reader *from) {
    Item tensor = next(from), dtype = next(from), shape = next(from);
    if (tensor.kind != ARRAY || dtype.kind != TEXT || shape.kind != ARRAY)
        fail("reply", "a tensor is missing");
    printf("%.*s [", (int)dtype.number, (const char *)dtype.bytes);
    for (uint64_t at = 0; at < shape.number; at++)
        printf(at ? ", %u" : "%u", (unsigned)next(from).number);
    printf("]");
    Item content = next(from);
    for (uint64_t at = 0; content.kind == BINARY && at + 4 <= content.number; at += 4) {
        const uint8_t *byte = content.bytes + at;
        uint32_t bits = byte[0] | byte[1] << 8 | byte[2] << 16 | (uint32_t)byte[3] << 24;
        float number;
        memcpy(&number, &bits, 4);
        printf(" %g", number);
    }
    printf("\n");
}

static void print_reply(Reader reply) {
    Reader status = reply, detail = reply, instances = reply;
    if (!find(&status, "status")) fail("reply", "it has no status");
    if (next(&status).number) {
        Item message = {TEXT, 1, (const uint8_t *)"?"};
        if (find(&detail, "message")) message = next(&detail);
        fprintf(stderr, "failed: %.*s\n", (int)message.number, (const char *)message.bytes);
        exit(1);
    }
    if (!find(&instances, "instances")) fail("reply", "it has no instances");
    for (uint64_t left = next(&instances).number; left; left--) {
        Reader outputs = instances;
        if (outputs.at < outputs.end && *outputs.at == 0xc0)
            fail("reply", "an instance failed; the key errors says why");
        if (!find(&outputs, "y")) fail("reply", "an output is missing");
        print_tensor(&outputs);
        skip(&instances);
    }
}

int main(int count, char **arguments) {
    if (count < 2) fail("usage", "producer ADDRESS [SERVABLE METHOD]");
    const char *address = arguments[1], *servable = count > 3 ? arguments[2] : "add";
    const float ones[FLOATS] = {1, 1, 1, 1}, ramp[FLOATS] = {1, 2, 3, 4};
    void *context = zmq_ctx_new();
    zmq_msg_t reply;
    zmq_msg_init(&reply);
    ask(context, address, "mmi.service", servable, strlen(servable), &reply);
    if (zmq_msg_size(&reply) != 3 || memcmp(zmq_msg_data(&reply), "200", 3))
        fail("nobody serves", servable);

    Writer request = {{0}, 0};
    put_byte(&request, 0x83);
    put_text(&request, "method");
    put_text(&request, count > 3 ? arguments[3] : "add_common");
    put_text(&request, "budget_ms");
    put_byte(&request, 0xcd);
    put_byte(&request, BUDGET_MS >> 8);
    put_byte(&request, BUDGET_MS & 0xff);
    put_text(&request, "instances");
    put_byte(&request, 0x90 | INSTANCES);
    for (int instance = 0; instance < INSTANCES; instance++) {
        put_byte(&request, 0x82);
        put_text(&request, "x1");
        put_float32_2x2(&request, ones);
        put_text(&request, "x2");
        put_float32_2x2(&request, ramp);
    }
    ask(context, address, servable, request.bytes, request.size, &reply);
    const uint8_t *bytes = zmq_msg_data(&reply);
    print_reply((Reader){bytes, bytes + zmq_msg_size(&reply)});
    zmq_msg_close(&reply);
    zmq_ctx_term(context);
    return 0;
}
