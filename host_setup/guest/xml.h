/* A strict reader of small XML documents: elements that hold either elements or text. Pure. */
#ifndef TASKLOADER_XML_H
#define TASKLOADER_XML_H

#include <stdbool.h>
#include <stddef.h>

#include "slice.h"

#define XML_MAX_DEPTH 8
#define XML_MAX_ELEMENTS 8192
#define XML_MAX_NAME 32
#define XML_MAX_TEXT 255

enum xml_event {
    XML_OPEN,  /* an element begins */
    XML_CLOSE, /* it ends; `text` is what it held, empty where it held elements */
    XML_END,   /* the document is whole */
    XML_BAD,   /* and stays so; `why` says what is wrong */
};

/* Read are ASCII, the five predefined entities, comments, and a declaration at the beginning; attributes are
 * passed over. Not read: document types, other entities, CDATA, processing instructions, mixed content. A NUL
 * at the end is none of the document's. */
struct xml {
    const char *at, *end;
    const char *why;
    int depth;
    int n_elements;
    bool is_leaf;    /* nothing but text so far in the innermost element */
    bool close_next; /* it was an empty-element tag */
    struct slice names[XML_MAX_DEPTH];
    struct slice name; /* of the event's element */
    size_t text_length;
    char text[XML_MAX_TEXT + 1];
};

struct xml xml_begin(const char *bytes, size_t length);
enum xml_event xml_next(struct xml *xml);

#endif
