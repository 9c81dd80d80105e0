//! Conformance of the ETSI GS QKD 014 front end, over real TLS on the loopback address.
//!
//! Every row of what the standard and its clients ask for, with the tests that hold it. A test of the module `rows`
//! checks that they are there. The strict client of another author is in `tests/foreign`.
//!
//! | clause | row | tests |
//! | --- | --- | --- |
//! | 5.1 | HTTPS alone | `a_client_without_tls_is_refused`, `only_https_is_spoken` |
//! | 5.1 | TLS 1.2 and later | `both_versions_of_tls_are_spoken` |
//! | 5.1 | HTTP/1.1 | `the_version_is_1_1_or_the_connection_ends`, `requests_sent_at_once_are_answered_in_order` |
//! | 5.1 | JSON of RFC 8259 in UTF-8 | `what_is_no_json_object_is_refused`, `text_that_is_no_utf_8_is_refused` |
//! | 5.1 | an SAE checks the KME's certificate | `a_server_of_another_authority_is_not_trusted`, `a_kme_proves_its_name_and_no_other` |
//! | 5.1 | a KME checks the SAE's certificate | `without_a_certificate_there_is_no_connection`, `a_foreign_or_expired_certificate_is_refused_in_the_handshake` |
//! | 5.1 | the SAE ID is from the certificate | `the_sae_is_the_uri_then_the_domain_then_the_common_name`, `a_uri_of_the_scheme_sae_counts_before_other_uris`, `a_listed_fingerprint_counts_before_any_name`, `with_the_authority_of_a_topology_the_uri_of_the_scheme_sae_alone_names_an_application` |
//! | 5.1 | and from no other SAEs | `an_sae_of_another_kme_gets_401_with_a_message_for_everything`, `a_change_of_the_list_reaches_connections_that_exist` |
//! | 5.1 | IDs are URL-encoded in paths | `names_in_paths_are_decoded_once`, `names_that_cannot_be_decoded_are_400` |
//! | 5.2 | Get status, GET | `status_has_exactly_the_members_of_the_standard` |
//! | 5.3 | Get key, GET and POST | `master_and_slave_get_equal_keys_by_get_and_by_post` |
//! | 5.3 | GET with number and size alone | `a_get_asks_for_number_and_size_alone` |
//! | 5.3 | delivered keys leave the pool | `a_key_can_be_fetched_once`, `defaults_are_one_key_of_the_kmes_size` |
//! | 5.4 | Get key with key IDs, GET and POST | `master_and_slave_get_equal_keys_by_get_and_by_post` |
//! | 5.4 | GET for one ID | `key_ids_are_a_list_of_objects_with_a_key_id` |
//! | 5.4 | the path names the master | `master_and_slave_get_equal_keys_by_get_and_by_post` |
//! | 5.4 | all or nothing | `one_missing_key_keeps_all_the_others_in_the_pool` |
//! | 5.4 | 401 for who is no slave of the key | `who_is_no_slave_of_a_key_gets_401_and_takes_nothing` |
//! | 6.1 | Status, every member and its type | `status_has_exactly_the_members_of_the_standard`, `every_count_of_a_status_fits_32_bits` |
//! | 6.1 | stored_key_count up to max_key_count | `a_status_says_no_more_keys_than_the_most_it_may` |
//! | 6.2 | every field is optional | `defaults_are_one_key_of_the_kmes_size` |
//! | 6.2 | number | `a_number_of_keys_is_from_1_to_the_maximum`, `a_number_is_an_integer_and_nothing_else` |
//! | 6.2 | size | `a_size_outside_of_the_limits_is_refused`, `a_size_that_is_no_multiple_of_8_has_the_standards_message` |
//! | 6.2 | additional_slave_SAE_IDs | `a_multicast_key_reaches_every_slave_once`, `multicast_is_refused_where_there_is_none`, `an_sae_that_nobody_knows_is_refused` |
//! | 6.2 | extension_mandatory | `a_mandatory_extension_has_the_standards_message` |
//! | 6.2 | extension_optional | `optional_extensions_and_unknown_members_are_ignored` |
//! | 6.3 | Key container | `master_and_slave_get_equal_keys_by_get_and_by_post`, `answers_with_key_are_json_that_nobody_may_store` |
//! | 6.3 | key_ID is a UUID, not from key | `ids_are_random_uuids_that_have_nothing_to_do_with_the_key` |
//! | 6.3 | key is base64 of RFC 4648 | `keys_are_padded_base64_of_the_standard_alphabet` |
//! | 6.4 | Key IDs | `key_ids_are_a_list_of_objects_with_a_key_id`, `a_key_id_counts_in_any_case_of_its_letters` |
//! | 6.5 | Error, message and details | `every_refusal_is_json_with_a_message`, `failures_of_the_supply_have_the_codes_of_the_standard` |
//! | 6.5 | unknown key IDs: 400, fixed message | `an_id_that_is_no_uuid_names_no_key`, `a_key_can_be_fetched_once` |
//! | 6.5 | 503 for errors of the server | `a_supply_that_does_not_answer_is_a_503`, `failures_of_the_supply_have_the_codes_of_the_standard` |
//! | clients | members that are null | `defaults_are_one_key_of_the_kmes_size`, `optional_extensions_and_unknown_members_are_ignored` |
//! | clients | unknown members | `optional_extensions_and_unknown_members_are_ignored` |
//! | clients | an empty POST is `{}` | `defaults_are_one_key_of_the_kmes_size` |
//! | clients | a body on GET | `a_body_on_get_is_ignored` |
//! | clients | any media type | `json_counts_whatever_its_media_type_says` |
//! | clients | a refused fetch loses no key | `a_fetch_that_was_refused_in_any_way_loses_no_key` |
//! | clients | a refused batch says which key | `one_missing_key_keeps_all_the_others_in_the_pool`, `a_batch_of_which_one_key_is_gone_says_which_and_takes_none` |
//! | clients | a repeated fetch, where the topology allows it | `a_repeated_fetch_within_the_window_gets_the_same_key_and_nobody_else_does` |
//! | clients | a message with every refusal | `every_refusal_is_json_with_a_message`, `unknown_paths_are_404_with_json`, `wrong_methods_are_405_with_json_and_the_right_ones` |
//! | clients | a connection for each request | `sessions_are_resumed_and_still_know_the_sae`, `a_resumed_session_ends_with_its_certificate` |
//! | clients | idle connections hold nobody up | `silent_connections_hold_nobody_up`, `an_idle_connection_is_closed_without_a_word`, `a_handshake_that_does_not_come_is_cut` |
//! | limits | crowds at the door | `silent_and_slow_connections_by_the_thousand_from_its_own_address_keep_an_application_from_nothing`, `a_handshake_among_others_than_fit_is_finished`, `applications_that_are_served_take_no_room_from_handshakes` |
//! | clients | keys in PKCS#8, PKCS#1, SEC1 | `private_keys_are_read_in_all_three_forms` |
//! | clients | no trace of theirs counts | `a_trace_of_the_client_is_not_taken_up_and_not_sent_back` |
//! | silent | an SAE is its own peer | `an_sae_may_be_its_own_peer` |
//! | silent | an empty pool: 503, Retry-After | `an_empty_pool_says_what_there_is_and_when_to_come_again` |
//! | silent | no path to the other KME: 400, no Retry-After | `failures_of_the_supply_have_the_codes_of_the_standard`, `sites_without_a_path_are_told_so_by_every_command` |
//! | silent | limits of a request | `a_request_names_so_many_keys_and_no_more` |
//! | silent | HEAD and OPTIONS | `head_shows_a_status_without_its_body_and_takes_no_key`, `options_says_what_is_allowed` |
//! | bad input | malformed JSON, wrong types | `what_is_no_json_object_is_refused`, `any_json_for_a_body_is_answered`, `any_bytes_for_a_body_are_answered` |
//! | bad input | a wrong type is named with its member | `a_member_of_a_wrong_type_is_named` |
//! | bad input | huge and negative numbers, floats | `a_number_is_an_integer_and_nothing_else`, `a_number_of_keys_is_from_1_to_the_maximum` |
//! | bad input | deep nesting | `deep_nesting_is_survived` |
//! | bad input | 100 MB bodies | `a_body_above_the_limit_is_413_without_being_read`, `chunks_above_the_limit_are_413_as_well` |
//! | bad input | chunked nonsense | `nonsense_in_place_of_chunks_is_refused` |
//! | bad input | smuggling by length | `a_length_beside_chunks_is_refused_in_either_order`, `two_lengths_are_refused_even_if_they_agree`, `a_length_is_made_of_digits` |
//! | bad input | smuggling by lines and codings | `folded_lines_and_stray_white_space_are_refused`, `line_feeds_alone_end_no_line`, `other_codings_than_chunked_are_refused`, `a_host_is_named_once` |
//! | bad input | heads without end | `heads_above_the_limit_are_refused`, `any_bytes_for_a_head_are_answered` |
//! | bad input | wrong paths and methods | `unknown_paths_are_404_with_json`, `wrong_methods_are_405_with_json_and_the_right_ones` |
//! | bad input | IDs that are no UUID | `an_id_that_is_no_uuid_names_no_key` |
//! | bad input | other SAEs' key IDs | `who_is_no_slave_of_a_key_gets_401_and_takes_nothing` |
//! | bad input | slow clients | `a_slow_head_is_408_and_closed`, `a_slow_body_is_408_and_closed`, `a_head_that_trickles_has_no_more_time_than_one_that_stops` |
//! | limits | keys per second | `an_application_gets_so_many_keys_a_second_and_no_more` |
//! | limits | keys that wait | `keys_that_nobody_fetches_are_so_many_for_each_master_and_no_more` |
//! | limits | connections | `connections_above_the_limit_are_closed_and_others_follow_when_one_ends`, `one_sae_with_all_the_connections_it_may_have_keeps_no_other_out` |
//! | limits | fair shares of a pool | `a_modest_application_is_served_beside_a_greedy_one` |
//! | secrecy | spans without key | `spans_say_who_asked_for_how_much_and_never_which_key` |

#![allow(clippy::unwrap_used)]

mod fake;
mod pki;
mod support;

mod clients;
mod delivery;
mod flood;
mod framing;
mod health;
mod http;
mod identity;
mod lifecycle;
mod random;
mod requests;
mod rows;
mod telemetry;
