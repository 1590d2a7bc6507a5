/* From a client's bytes, in pieces of any size, to what it says: the framing of the Genode protocol. Pure. */
#ifndef TASKLOADER_GENODE_INPUT_H
#define TASKLOADER_GENODE_INPUT_H

#include "genode_tasks.h"

#define GENODE_MAX_TEXT ((size_t)256 << 10)
#define GENODE_MAX_FILES 64
#define GENODE_NAME_FIELD 16

enum genode_tag {
    TAG_GO_SEND = 0x00000090,
    TAG_SEND_DESCS = 0x00000DE5,
    TAG_CLEAR = 0x00000DE6,
    TAG_REBOOT = 0x000159D3,
    TAG_AVAILABLE = 0x000AAAAA,
    TAG_START = 0x00514DE5,
    TAG_STOP = 0x00514DE6,
    TAG_SEND_BINARIES = 0x0DE5F11E,
    TAG_OPTIMIZE = 0x6F7074,
};

enum genode_event {
    GENODE_NOTHING,    /* more bytes are needed */
    GENODE_WORD,       /* a tag that nothing follows: `tag` */
    GENODE_TEXT,       /* `tag` with its document: `text_bytes` of `text` */
    GENODE_NEXT_FILE,  /* it waits for GO_SEND */
    GENODE_FILE,       /* a file begins: `name`, `left` bytes */
    GENODE_FILE_PIECE, /* `piece` is its next part */
    GENODE_FILE_END,
    GENODE_BAD, /* and stays so: nobody knows where the next tag would be; `why` */
};

enum genode_wait { WAIT_TAG, WAIT_SIZE, WAIT_TEXT, WAIT_FILE_HEAD, WAIT_FILE, WAIT_NEXT_FILE, WAIT_NEVER };

struct genode_input {
    enum genode_wait wait;
    uint32_t tag;
    size_t n_head;
    unsigned char head[GENODE_NAME_FIELD + sizeof(uint32_t)];
    uint32_t left; /* bytes of the text or file that are still to come */
    uint32_t n_files_left;
    const char *why;
    struct slice piece; /* of the bytes given */
    char name[GENODE_NAME_FIELD + 1];
    size_t text_bytes;
    char text[GENODE_MAX_TEXT];
};

/* Takes bytes off the front of `bytes`, up to the next event. */
enum genode_event genode_input_next(struct genode_input *input, struct slice *bytes);

#endif
