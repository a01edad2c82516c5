"""The main job end to end: stages with passports, so that a run resumes and leaves no process."""
