#include "genode_input.h"

#include <string.h>

static enum genode_event bad(struct genode_input *input, const char *why)
{
    input->wait = WAIT_NEVER;
    input->why = why;
    return GENODE_BAD;
}

static uint32_t word_at(const unsigned char *bytes)
{
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

/* Collects `n` bytes in `to`; false while there are fewer. */
static bool gather(void *to, size_t *n_there, size_t n, struct slice *bytes)
{
    size_t part = n - *n_there < bytes->length ? n - *n_there : bytes->length;

    if (part > 0) {
        memcpy((char *)to + *n_there, bytes->bytes, part);
        *n_there += part;
        bytes->bytes += part;
        bytes->length -= part;
    }
    return *n_there == n;
}

static bool gather_head(struct genode_input *input, size_t n, struct slice *bytes)
{
    if (!gather(input->head, &input->n_head, n, bytes))
        return false;
    input->n_head = 0;
    return true;
}

static enum genode_event take_tag(struct genode_input *input)
{
    input->tag = word_at(input->head);
    switch (input->tag) {
    case TAG_SEND_DESCS:
    case TAG_OPTIMIZE:
    case TAG_SEND_BINARIES:
        input->wait = WAIT_SIZE;
        return GENODE_NOTHING;
    case TAG_CLEAR:
    case TAG_START:
    case TAG_STOP:
    case TAG_AVAILABLE:
    case TAG_REBOOT:
        return GENODE_WORD;
    default:
        return bad(input, "a tag that is none");
    }
}

/* Of a document, or how many files. */
static enum genode_event take_size(struct genode_input *input)
{
    uint32_t size = word_at(input->head);

    if (input->tag == TAG_SEND_BINARIES) {
        if (size > GENODE_MAX_FILES)
            return bad(input, "too many binaries at once");
        input->n_files_left = size;
        input->wait = WAIT_NEXT_FILE;
        return GENODE_NOTHING;
    }
    if (size > GENODE_MAX_TEXT)
        return bad(input, "a document that is too long");
    input->left = size;
    input->text_bytes = 0;
    input->wait = WAIT_TEXT;
    return GENODE_NOTHING;
}

static enum genode_event take_file_head(struct genode_input *input)
{
    memcpy(input->name, input->head, GENODE_NAME_FIELD);
    input->name[GENODE_NAME_FIELD] = '\0';
    input->left = word_at(input->head + GENODE_NAME_FIELD);
    input->wait = WAIT_FILE;
    return GENODE_FILE;
}

static enum genode_event take_piece(struct genode_input *input, struct slice *bytes)
{
    if (input->left == 0) {
        input->wait = WAIT_NEXT_FILE;
        return GENODE_FILE_END;
    }
    if (bytes->length == 0)
        return GENODE_NOTHING;
    input->piece = (struct slice){bytes->bytes, input->left < bytes->length ? input->left : bytes->length};
    input->left -= (uint32_t)input->piece.length;
    bytes->bytes += input->piece.length;
    bytes->length -= input->piece.length;
    return GENODE_FILE_PIECE;
}

static enum genode_event next_file(struct genode_input *input)
{
    input->wait = input->n_files_left == 0 ? WAIT_TAG : WAIT_FILE_HEAD;
    if (input->n_files_left == 0)
        return GENODE_NOTHING;
    input->n_files_left--;
    return GENODE_NEXT_FILE;
}

/* One step; `*stuck` when it has to wait for bytes. */
static enum genode_event step(struct genode_input *input, struct slice *bytes, bool *stuck)
{
    enum genode_event event = GENODE_NOTHING;

    switch (input->wait) {
    case WAIT_TAG:
    case WAIT_SIZE:
        *stuck = !gather_head(input, sizeof(uint32_t), bytes);
        return *stuck ? GENODE_NOTHING : input->wait == WAIT_TAG ? take_tag(input) : take_size(input);
    case WAIT_TEXT:
        *stuck = !gather(input->text, &input->text_bytes, input->left, bytes);
        if (*stuck)
            return GENODE_NOTHING;
        input->wait = WAIT_TAG;
        return GENODE_TEXT;
    case WAIT_FILE_HEAD:
        *stuck = !gather_head(input, sizeof input->head, bytes);
        return *stuck ? GENODE_NOTHING : take_file_head(input);
    case WAIT_FILE:
        event = take_piece(input, bytes);
        *stuck = event == GENODE_NOTHING;
        return event;
    case WAIT_NEXT_FILE:
        return next_file(input);
    case WAIT_NEVER:
        return GENODE_BAD;
    }
    __builtin_unreachable();
}

enum genode_event genode_input_next(struct genode_input *input, struct slice *bytes)
{
    enum genode_event event;
    bool stuck = false;

    do
        event = step(input, bytes, &stuck);
    while (event == GENODE_NOTHING && !stuck);
    return event;
}
