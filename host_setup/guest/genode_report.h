/* The Genode protocol's profiles about a run. */
#ifndef TASKLOADER_GENODE_REPORT_H
#define TASKLOADER_GENODE_REPORT_H

#include "genode_tasks.h"
#include "report.h"

/* `event` elements; `form_data` of the run are the `struct genode_tasks` whose ids they name. */
extern const struct report_form GENODE_PROFILE;

/* Appends a profile of what the run has to tell; false, and nothing appended, when that is nothing. `out` has
 * room. */
bool genode_report(struct run *run, struct out *out);

/* Appends a profile that says of every task that it was refused, and is over. */
void genode_report_refusal(const struct genode_tasks *tasks, struct out *out);

/* Appends a tag. */
void genode_report_word(uint32_t word, struct out *out);

#endif
