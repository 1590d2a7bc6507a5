#define _GNU_SOURCE
#include "xml.h"

#include <string.h>

struct xml xml_begin(const char *bytes, size_t length)
{
    while (length > 0 && bytes[length - 1] == '\0')
        length--;
    return (struct xml){.at = bytes, .end = bytes + length};
}

static enum xml_event bad(struct xml *xml, const char *why)
{
    if (!xml->why)
        xml->why = why;
    return XML_BAD;
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool is_name_start(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

static bool is_name(char c) { return is_name_start(c) || (c >= '0' && c <= '9') || c == '-' || c == '.'; }

static bool starts(const struct xml *xml, const char *what)
{
    size_t length = strlen(what);

    return (size_t)(xml->end - xml->at) >= length && memcmp(xml->at, what, length) == 0;
}

static void skip_blanks(struct xml *xml)
{
    while (xml->at < xml->end && is_blank(*xml->at))
        xml->at++;
}

/* Moves behind the next `what`. */
static bool skip_to(struct xml *xml, const char *what)
{
    const char *found = memmem(xml->at, (size_t)(xml->end - xml->at), what, strlen(what));

    if (!found)
        return false;
    xml->at = found + strlen(what);
    return true;
}

static bool take_name(struct xml *xml, struct slice *name)
{
    name->bytes = xml->at;
    if (xml->at == xml->end || !is_name_start(*xml->at))
        return false;
    while (xml->at < xml->end && is_name(*xml->at))
        xml->at++;
    name->length = (size_t)(xml->at - name->bytes);
    return name->length <= XML_MAX_NAME;
}

static bool skip_attributes(struct xml *xml)
{
    struct slice name;

    for (;;) {
        bool parted = xml->at < xml->end && is_blank(*xml->at);
        skip_blanks(xml);
        if (xml->at == xml->end || *xml->at == '>' || *xml->at == '/')
            return true;
        if (!parted || !take_name(xml, &name) || xml->at == xml->end || *xml->at++ != '=' ||
            xml->at == xml->end || (*xml->at != '"' && *xml->at != '\''))
            return false;
        char quote = *xml->at++;
        while (xml->at < xml->end && *xml->at != quote && *xml->at != '<')
            xml->at++;
        if (xml->at == xml->end || *xml->at++ != quote)
            return false;
    }
}

static bool take_entity(struct xml *xml, char *c)
{
    static const struct {
        const char *text;
        char c;
    } ENTITIES[] = {{"&lt;", '<'}, {"&gt;", '>'}, {"&amp;", '&'}, {"&quot;", '"'}, {"&apos;", '\''}};

    for (size_t i = 0; i < sizeof ENTITIES / sizeof ENTITIES[0]; i++) {
        if (starts(xml, ENTITIES[i].text)) {
            xml->at += strlen(ENTITIES[i].text);
            *c = ENTITIES[i].c;
            return true;
        }
    }
    return false;
}

/* Up to the next tag; without the blanks around it. */
static bool take_text(struct xml *xml)
{
    while (xml->at < xml->end && *xml->at != '<') {
        char c = *xml->at;
        if (c == '&') {
            if (!take_entity(xml, &c))
                return bad(xml, "an entity that is none of the predefined five"), false;
        } else if (is_blank(c) || (c >= 0x20 && c < 0x7f)) {
            xml->at++;
        } else {
            return bad(xml, "a character that is not printable ASCII"), false;
        }
        if (xml->text_length == 0 && is_blank(c))
            continue;
        if (xml->depth == 0 || !xml->is_leaf)
            return bad(xml, "text where only elements may be"), false;
        if (xml->text_length == XML_MAX_TEXT)
            return bad(xml, "an element's text is too long"), false;
        xml->text[xml->text_length++] = c;
    }
    return true;
}

static enum xml_event close_element(struct xml *xml)
{
    while (xml->text_length > 0 && is_blank(xml->text[xml->text_length - 1]))
        xml->text_length--;
    xml->text[xml->text_length] = '\0';
    xml->name = xml->names[--xml->depth];
    xml->is_leaf = false;
    return XML_CLOSE;
}

static enum xml_event take_end_tag(struct xml *xml)
{
    struct slice name;

    xml->at += 2;
    if (xml->depth == 0 || !take_name(xml, &name))
        return bad(xml, "an end tag of nothing");
    skip_blanks(xml);
    if (xml->at == xml->end || *xml->at++ != '>')
        return bad(xml, "an end tag that does not end");
    const struct slice *open = &xml->names[xml->depth - 1];
    if (open->length != name.length || memcmp(open->bytes, name.bytes, name.length) != 0)
        return bad(xml, "an end tag of another element");
    return close_element(xml);
}

static enum xml_event take_start_tag(struct xml *xml)
{
    xml->at++;
    if (xml->depth == 0 && xml->n_elements > 0)
        return bad(xml, "more than one document");
    if (xml->text_length > 0)
        return bad(xml, "an element within text");
    if (xml->depth == XML_MAX_DEPTH || xml->n_elements == XML_MAX_ELEMENTS)
        return bad(xml, "too many elements, or too deep");
    if (!take_name(xml, &xml->name) || !skip_attributes(xml))
        return bad(xml, "a tag that is malformed");
    xml->close_next = starts(xml, "/>");
    xml->at += xml->close_next;
    if (xml->at == xml->end || *xml->at++ != '>')
        return bad(xml, "a tag that does not end");
    xml->names[xml->depth++] = xml->name;
    xml->n_elements++;
    xml->is_leaf = true;
    xml->text_length = 0;
    return XML_OPEN;
}

enum xml_event xml_next(struct xml *xml)
{
    if (xml->why)
        return XML_BAD;
    if (xml->n_elements == 0 && starts(xml, "<?xml") && !skip_to(xml, "?>"))
        return bad(xml, "a declaration that does not end");
    if (xml->close_next) {
        xml->close_next = false;
        return close_element(xml);
    }
    if (!xml->is_leaf)
        xml->text_length = 0;
    for (;;) {
        if (!take_text(xml))
            return XML_BAD;
        if (xml->at == xml->end)
            return xml->depth == 0 && xml->n_elements > 0 ? XML_END : bad(xml, "the document is not whole");
        if (!starts(xml, "<!--"))
            break;
        xml->at += strlen("<!--");
        if (!skip_to(xml, "-->"))
            return bad(xml, "a comment that does not end");
    }
    return starts(xml, "</") ? take_end_tag(xml) : take_start_tag(xml);
}
